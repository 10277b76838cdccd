"""Mistakes in the configuration: each is told with its place and what is allowed, and no secret with it."""

import textwrap
from pathlib import Path

import pytest

from smarthost.config import Config, ConfigError, load

HASH = "$argon2id$v=19$m=65536,t=3,p=4$HTJd5xv3rRMZTqh6uhdcfw$kzPce+DhYp3O2h3Sg8b0CoCFAObM38ok+ntWiCfqueo"


def load_text(folder: Path, text: str, **environ: str) -> Config:
    """Load a configuration that is written here."""
    file = folder / "smarthost.toml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return load(file, environ, fqdn=lambda: "relay.example.org")


def mistakes(folder: Path, text: str, **environ: str) -> list[str]:
    """Give what is said of a configuration that is wrong, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text, **environ)
    return caught.value.render().replace(f"{folder}/", "").splitlines()


def test_mistakes_in_the_environment_name_the_variable(tmp_path: Path) -> None:
    """A wrong value of a variable is not blamed on the file."""
    found = mistakes(
        tmp_path,
        "[log]\nlevel = 'info'",
        SMARTHOST__LOG__LEVEL="loud",
        SMARTHOST__SUBMISSION__MAX_HOPS="many",
        SMARTHOST__HTTP__ADRESS="127.0.0.1:1",
    )
    assert found == [
        "SMARTHOST__HTTP__ADRESS: http.adress: is not known; did you mean 'address'?",
        'SMARTHOST__LOG__LEVEL: log.level: is "loud", but must be one of: debug, info, warning, error',
        'SMARTHOST__SUBMISSION__MAX_HOPS: submission.max_hops: is "many", but must be a whole number of 1 or more',
    ]


@pytest.mark.parametrize("name", ["SMARTHOST__HOSTNAME__X", "SMARTHOST__USER__5__NAME", "SMARTHOST__", "SMARTHOST__0"])
def test_a_variable_that_fits_nowhere_is_an_error(tmp_path: Path, name: str) -> None:
    """A variable whose place does not exist is not ignored."""
    (line,) = mistakes(tmp_path, 'hostname = "a.example"', **{name: "x"})
    assert line.startswith(f"{name}: fits no place in the configuration; write SMARTHOST__SECTION__KEY")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Every mistake is one line, FILE:LINE: key.path: what is wrong and what is allowed, in the order of lines."""
    found = mistakes(
        tmp_path,
        """\
        hostnam = "x"
        relayhost = ["[a b]:587", "ok.example"]
        relayhost_tls = "danish"

        [[listener]]
        adress = "0.0.0.0:25"

        [[listener]]
        address = "0.0.0.0:26"
        auth = "maybe"
        tls = 3

        [submission]
        max_recipients = "many"
        trusted_networks = [
          "127.0.0.0/8",
          "10.0.0.1/8",   # a comment, with ] and "
          "0.0.0.0/0",
        ]
        [[route]]
        deliver = "mx"
        match = { sender = ["*@x"], usr = ["a"] }
        [retry]
        lifetime = 5
        """,
    )
    assert found == [
        "smarthost.toml:1: hostnam: is not known; did you mean 'hostname'?",
        "smarthost.toml:2: relayhost[0]: '[a b]:587' is no next hop; write host, [host], host:port, [host]:port "
        "or smtps://host; brackets mean no MX lookup",
        'smarthost.toml:3: relayhost_tls: is "danish", but must be one of: none, may, encrypt, verify, dane',
        "smarthost.toml:6: listener[0].adress: is not known; did you mean 'address'?",
        'smarthost.toml:10: listener[1].auth: is "maybe", but must be one of: required, optional, none',
        "smarthost.toml:11: listener[1].tls: is 3, but must be one of: starttls, implicit, none",
        'smarthost.toml:14: submission.max_recipients: is "many", but must be a whole number of 1 or more',
        'smarthost.toml:17: submission.trusted_networks[1]: is "10.0.0.1/8", but must be a network as '
        'its first address: "10.0.0.0/8"',
        'smarthost.toml:18: submission.trusted_networks[2]: is "0.0.0.0/0", which would make an open relay; '
        "name the networks that are yours",
        "smarthost.toml:22: route[0].match.usr: is not known; did you mean 'user'?",
        'smarthost.toml:24: retry.lifetime: is 5, but must be a number with a unit: "8s", "5m", "2h", "5d"',
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [('a = 1\nb = "x\nc = 2', 2), ("hostname = \n", 1), ("[log]\n[log]\n", 2), ("x = [1,\n\n", 3), ("x = 'a", 1)],
)
def test_what_is_not_toml_has_a_line_too(tmp_path: Path, text: str, line: int) -> None:
    """A syntax error names the file and the line; its words are the parser's."""
    (said,) = mistakes(tmp_path, text)
    assert said.startswith(f"smarthost.toml:{line}: is not TOML: ")
    assert " (column " in said


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Octets that are not UTF-8 are an error, not a crash."""
    file = tmp_path / "smarthost.toml"
    file.write_bytes(b'hostname = "\xff\xfe"')
    with pytest.raises(ConfigError, match="1 problem"):
        load(file, {})


NOT_YET = [
    ("[[listener]]\nprotocol = 'http'", "listener[0].protocol"),
    ("[[listener]]\nproxy_protocol = true", "listener[0].proxy_protocol"),
    ("[[listener]]\ntrusted_proxies = ['10.0.0.0/8']", "listener[0].trusted_proxies"),
    ("[tls]\nclient_ca = '/x'", "tls.client_ca"),
    ("[http]\ntokens = ['x']", "http.tokens"),
]


@pytest.mark.parametrize(("text", "key"), NOT_YET)
def test_what_this_release_cannot_do_is_refused(tmp_path: Path, text: str, key: str) -> None:
    """A key that could not be honoured is an error that says so, and never ignored."""
    (line,) = mistakes(tmp_path, text)
    assert f": {key}: " in line
    assert "not supported by this release" in line


REPLY = "match = { reply = 'x' }"
WRONG = [
    ("[[limit]]\non_limit = 'error'", 'limit[0].on_limit: is "error", which is for limits whose match has nothing but'),
    (
        "[[limit]]\nmatch = { user = 'a', tag = 'b' }\non_limit = 'error'",
        'limit[0].on_limit: is "error", which is for limits whose match has nothing but destination, sender_domain',
    ),
    (
        "[[limit]]\nmatch = { user = 'a' }\non_limit = 'error'\nmax_connections = 1",
        'limit[0].max_connections: does not go with on_limit = "error"; allowed are message_rate, recipient_rate',
    ),
    (
        "[[limit]]\nmatch = { user = 'a' }\nidle_timeout = '1s'",
        "limit[0].idle_timeout: is for whole sites; it is allowed",
    ),
    (
        "[[limit]]\nmatch = { tag = 'a', site = 'b' }",
        "limit[0].match.site: stands beside tag; a limit with tag may have",
    ),
    ("[[limit]]\nrecipient_rate = ['x']", "limit[0].recipient_rate[0]: 'x' is no rate"),
    ("hostname = '[192.0.2.1]'", "hostname: is"),
    ("hostname = '192.0.2.1'", "hostname: is"),
    ("hostname = 5", "hostname: is 5, but must be text"),
    ("postmaster = 'nobody'", "postmaster: is"),
    ("shutdown_timeout = '0s'", "shutdown_timeout: is"),
    ("relayhost_tls = 'may'", "relayhost_tls: has no meaning without relayhost"),
    ("relayhost = 5", "relayhost[0]: is 5, but must be text"),
    ("relayhost = 'smtps://a.example'\nrelayhost_tls = 'none'", "relayhost_tls: is"),
    ("relayhost = 'a.example'\nrelayhost_auth = { username = 'u' }", "relayhost_auth.password: is missing"),
    ("relayhost = 'a.example'\nrelayhost_auth = { password = 'u' }", "relayhost_auth.username: is missing"),
    ("relayhost = 'a.example'\nrelayhost_auth = 'u:p'", "relayhost_auth: is"),
    ("relayhost = 'a.example'\nrelayhost_ca = '/no/such/file'", "relayhost_ca: is"),
    ("[[listener]]\naddress = '587'", "listener[0].address: is"),
    ("[[listener]]\naddress = '0.0.0.0:99999'", "listener[0].address: is"),
    ("[[listener]]\naddress = '192.0.2.300:25'", "listener[0].address: is"),
    ("[[listener]]\naddress = '::1:25'", "listener[0].address: is"),
    ("[[listener]]\naddress = 'unix:here'", "listener[0].address: is"),
    ("[[listener]]\n[[listener]]", "listener[1].address: the same address is given twice"),
    ("listener = 5", "listener: must be an array of tables: [[listener]]"),
    ("submission = 5", "submission: is 5, but must be a table"),
    ("[submission]\ntrusted_networks = '10.0.0.0/8'", "submission.trusted_networks: is"),
    ("[submission]\nmax_message_size = '0MiB'", "submission.max_message_size: is 0"),
    ("[submission]\nmax_message_size = 'big'", "submission.max_message_size: is"),
    ("[submission]\nmax_recipients = 0", "submission.max_recipients: is 0"),
    ("[submission]\nmax_recipients = true", "submission.max_recipients: is true"),
    ("[submission]\nhide_client = 'yes'", "submission.hide_client: is"),
    ("[submission]\nlong_lines = 'fold'", "submission.long_lines: is"),
    ("[[user]]\nname = 'a'", "user[0].password: is missing"),
    ("[[user]]\nname = 'a'\npassword = 'plain'", "user[0].password: is not a hash that begins with $argon2id$"),
    ("[[user]]\nname = 'a'\npassword = '$argon2id$...'", "user[0].password: is a damaged or shortened"),
    ("[[user]]\nname = 'a'\npassword = '" + HASH[:-40] + "'", "user[0].password: is a damaged or shortened"),
    ("[[user]]\nname = 'a'\npassword = '" + HASH.replace("t=3,", "") + "'", "user[0].password: is a damaged"),
    (f"[[user]]\npassword = '{HASH}'", "user[0].name: is missing"),
    (f"[[user]]\nname = 'a'\npassword = '{HASH}'\npriority = 'urgent'", "user[0].priority: is"),
    (
        f"[[user]]\nname = 'a'\npassword = '{HASH}'\nmessage_rate = ['fast']",
        "user[0].message_rate[0]: 'fast' is no rate",
    ),
    ("[[dkim]]\ndomain = 'a.example'\nselector = 's'\nkey = '/no/such/key'", "dkim[0].key: is"),
    ("[[rewrite]]\nmatch = 'root@*'", "rewrite[0].match: changes nothing"),
    ("[[rewrite]]\nrecipient = 'a@b.example'", "rewrite[0].match: is missing"),
    ("[[rewrite]]\nmatch = '*'\nrecipient = 'a'", "rewrite[0].recipient: is"),
    ("[[route]]\nname = 'x'", "route[0].deliver: or relayhost must be given"),
    ("[[route]]\ndeliver = 'mx'\nrelayhost = 'a.example'", "route[0].deliver: and relayhost are both given"),
    ("[[route]]\ndeliver = 'relayhost'", "route[0].deliver: must name a next hop"),
    ("[[route]]\nrelayhost = []", "route[0].relayhost: must name a next hop"),
    ("[[route]]\nname = 'a/b'\ndeliver = 'mx'", "route[0].name: is"),
    ("[[route]]\nname = 'mx'\ndeliver = 'hold'", "route[0].name: is"),
    ("[[route]]\nname = 'a'\ndeliver = 'mx'\n[[route]]\nname = 'a'\ndeliver = 'mx'", "route[1].name: is"),
    ("[[route]]\ndeliver = 'hold'\ntls = 'verify'", "route[0].tls: has no meaning"),
    ("[[route]]\ndeliver = 'hold'\nmta_sts = true", "route[0].mta_sts: has no meaning"),
    (
        "[[route]]\nrelayhost = 'a.example'\nmta_sts = true",
        "route[0].mta_sts: has no meaning",
    ),
    ("[tls_out]\nlevel = 'none'\nmta_sts = true", 'tls_out.mta_sts: is true, but level is "none"'),
    ("[tls_out]\nlevel = 'most'", "tls_out.level: is"),
    (
        "[[route]]\ndeliver = 'mx'\nclient_key = '/etc/passwd'",
        "route[0].client_key: is given without client_certificate",
    ),
    (
        "[[route]]\ndeliver = 'mx'\ntls = 'none'\nclient_key = '/etc/passwd'\nclient_certificate = '/etc/passwd'",
        "route[0].client_certificate: is shown over TLS only",
    ),
    ("relayhost_client_key = '/etc/passwd'", "relayhost_client_key: has no meaning without relayhost"),
    ("[[route]]\ndeliver = 'mx'\nmatch = { sender = [] }", "route[0].match.sender: is an empty array"),
    ("[[limit]]\nmatch = { route = 'gone' }", "limit[0].match.route: is"),
    ("[[limit]]\nmax_connections = 0", "limit[0].max_connections: is 0"),
    (
        "[[limit]]\nmax_connection_rate = '5/h,max_burst=2'",
        "limit[0].max_connection_rate: '5/h,max_burst=2' is a quota",
    ),
    (f"[[automation]]\n{REPLY}", "automation[0].action: is missing; allowed are: suspend, slow_down, "),
    (
        f"[[automation]]\n{REPLY}\naction = 'stop'",
        'automation[0].action: is "stop", but must be one of: suspend, slow_',
    ),
    ("[[automation]]\naction = 'fail'", "automation[0].match.reply: is missing; write a regular expression"),
    (
        "[[automation]]\naction = 'fail'\nmatch = { reply = '4(' }",
        'automation[0].match.reply: is "4(", but must be a regular expression: missing ), unterminated subpattern',
    ),
    (
        "[[automation]]\naction = 'fail'\nmatch = { reply = 'x*' }",
        'automation[0].match.reply: is "x*", which matches every',
    ),
    ("[[automation]]\naction = 'fail'\nmatch = { reply = 'x', stage = 'connect' }", "automation[0].match.stage: is"),
    ("[[automation]]\naction = 'fail'\nmatch = { reply = 'x', route = 'gone' }", "automation[0].match.route: is"),
    ("[[automation]]\naction = 'fail'\nmatch = { reply = 'x', host = 'y' }", "automation[0].match.host: is not known"),
    (f"[[automation]]\n{REPLY}\naction = 'slow_down'", 'automation[0].action: is "slow_down" without a rate; give'),
    (
        f"[[automation]]\n{REPLY}\naction = 'slow_down'\nmessage_rate = 'slow'",
        "automation[0].message_rate[0]: 'slow' is no",
    ),
    (
        f"[[automation]]\n{REPLY}\naction = 'switch_route'",
        'automation[0].action: is "switch_route" without a route; give',
    ),
    (
        f"[[automation]]\n{REPLY}\naction = 'switch_route'\nroute = 'gone'",
        'automation[0].route: is "gone", but there is no such route; there are: mx',
    ),
    (
        "[[automation]]\nmatch = { reply = 'x', route = 'mx' }\naction = 'switch_route'\nroute = 'mx'",
        'automation[0].route: is "mx", which is the route that is matched',
    ),
    (f"[[automation]]\n{REPLY}\naction = 'suspend'\nduration = '0s'", "automation[0].duration: is"),
    (
        f"[[automation]]\n{REPLY}\naction = 'suspend'\nthreshold = 'often'",
        "automation[0].threshold: 'often' is no rate",
    ),
    (
        f"[[automation]]\n{REPLY}\naction = 'suspend'\nthreshold = '3/10min,max_burst=2'",
        'automation[0].threshold: is "3/10min,max_burst=2", but must be a number of replies in a time',
    ),
    (
        f"[[automation]]\n{REPLY}\naction = 'fail'\nduration = '1h'",
        'automation[0].duration: has no meaning with action = "fail"; it is for suspend, slow_down, switch_route',
    ),
    (
        f"[[automation]]\n{REPLY}\naction = 'suspend'\nmax_connections = 1",
        "automation[0].max_connections: has no meaning",
    ),
    (
        f"[[automation]]\n{REPLY}\naction = 'fail'\nname = 'a'\n[[automation]]\n{REPLY}\naction = 'fail'\nname = 'a'",
        'automation[1].name: is "a", which another rule has',
    ),
    ("automation_presets = 'yes'", 'automation_presets: is "yes", but must be true or false'),
    ("[retry]\nschedule = []", "retry.schedule: is empty"),
    ("[retry]\ndelay_warning = ['1d', '4h']", "retry.delay_warning: must be ascending"),
    ("[report]\nroute = 'gone'", "report.route: is"),
    ("[report]\nreverse_path = 'x'", "report.reverse_path: is"),
    ("[dns]\nservers = ['resolver.example']", "dns.servers[0]: is"),
    ("[dns]\ndnssec = 'yes'", "dns.dnssec: is"),
    ("[http]\naddress = '9587'", "http.address: is"),
    ("[http]\naddress = 'unix:/run/x'", "http.address: is"),
    ("[log]\nlevel = 'loud'", "log.level: is"),
    ("[loging]\nlevel = 'info'", "loging: is not known"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_every_wrong_value_is_told(tmp_path: Path, text: str, said: str) -> None:
    """A wrong key, type or value is one line with its file, its line and its key."""
    (line,) = mistakes(tmp_path, text)
    place, _, rest = line.partition(": ")
    assert place.startswith("smarthost.toml:")
    assert 1 <= int(place.removeprefix("smarthost.toml:")) <= text.count("\n") + 1
    assert rest.startswith(said)


def test_a_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    """No message about a password has it in it."""
    found = mistakes(tmp_path, "[[user]]\nname = 'a'\npassword = 'hunter2hunter2'")
    assert "hunter2" not in found[0]
    text = "relayhost = 'a.example'\nrelayhost_auth = { username = 'u', password = 5551234 }"
    assert "5551234" not in mistakes(tmp_path, text)[0]


def test_secrets_in_files(tmp_path: Path) -> None:
    """A secret's file must be readable, not empty, and the only place that gives it."""
    auth = "relayhost = 'a.example'\nrelayhost_auth = { username = 'u', %s }"
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "good").write_text("p\r\n")
    assert load_text(tmp_path, auth % f"password_file = '{tmp_path}/good'").credentials["relayhost"].password == "p"
    for setting, said in (
        (f"password_file = '{tmp_path}/gone'", "cannot be read: No such file or directory"),
        (f"password_file = '{tmp_path}/empty'", "which is empty"),
        (f"password = 'p', password_file = '{tmp_path}/good'", "are both given"),
    ):
        (line,) = mistakes(tmp_path, auth % setting)
        assert line.startswith("smarthost.toml:2: relayhost_auth.password_file: ")
        assert said in line


def test_no_password_without_tls(tmp_path: Path) -> None:
    """A login over plain text is refused unless it is asked for, and doubted where TLS may be missing."""
    auth = "relayhost = 'a.example'\nrelayhost_tls = '%s'\nrelayhost_auth = { username = 'u', password = 'p'%s }"
    (line,) = mistakes(tmp_path, auth % ("none", ""))
    assert line.startswith("smarthost.toml:3: relayhost_auth: would send the password without TLS")
    assert load_text(tmp_path, auth % ("none", ", allow_plaintext = true")).fallback.allow_plaintext_auth
    assert "only where TLS can be had" in " ".join(load_text(tmp_path, auth % ("may", "")).warnings)


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_secrets_that_everybody_can_read(tmp_path: Path, mode: int) -> None:
    """A password in a file that is open to all is a warning that names the key, and the password is not in it."""
    (tmp_path / "smarthost.toml").touch()
    (tmp_path / "secret").write_text("geheim")
    for file in ("smarthost.toml", "secret"):
        (tmp_path / file).chmod(mode)
    auth = "relayhost = 'a.example'\nrelayhost_auth = { username = 'u', %s }"
    for setting in ("password = 'geheim'", f"password_file = '{tmp_path}/secret'"):
        said = [line for line in load_text(tmp_path, auth % setting).warnings if "every user" in line]
        assert len(said) == (mode == 0o644)
        assert all(setting.partition(" ")[0] in line and "geheim" not in line for line in said)


def test_both_certificate_and_key(tmp_path: Path) -> None:
    """A certificate without its key is an error."""
    (tmp_path / "cert.pem").write_text("x")
    (line,) = mistakes(tmp_path, f"[tls]\ncertificate = '{tmp_path}/cert.pem'")
    assert line.startswith("smarthost.toml:2: tls.certificate: is given without key")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hostname = 'relay'", "no dot"),
        ("[[listener]]\naddress = '0.0.0.0:25'", "stands nowhere"),
        ("[[listener]]\naddress = '0.0.0.0:25'\nallow_plaintext_auth = true\nauth = 'required'", "unprotected"),
        ("[[listener]]\naddress = '0.0.0.0:25'\ntls = 'none'\nauth = 'required'", "trusted networks only"),
        ("[[listener]]\nauth = 'required'", "nobody can log in"),
        ("[submission]\ntrusted_networks = ['8.0.0.0/8']", "much of the Internet"),
        ("[dns]\ndnssec = 'off'\n[[route]]\ndeliver = 'mx'\ntls = 'dane'", "dane proves nothing"),
        ("[dns]\ndnssec = 'off'\n[tls_out]\nlevel = 'dane'", "dane proves nothing"),
        ("", "self-signed"),
    ],
)
def test_warnings(tmp_path: Path, text: str, said: str) -> None:
    """What works but may not be meant is said, and does not stop the relay."""
    assert any(said in warning for warning in load_text(tmp_path, text).warnings)


def test_mistakes_in_the_suppression_list(tmp_path: Path) -> None:
    """Each key of [suppression] says what is allowed."""
    text = """
        [suppression]
        enabled = "yes"
        scope = "tenant"
        at = "data"
        after = 20
        ignore = ["4.7", "5.7"]
        expires = "30d"
    """
    assert mistakes(tmp_path, text) == [
        'smarthost.toml:3: suppression.enabled: is "yes", but must be true or false',
        'smarthost.toml:4: suppression.scope: is "tenant", but must be one of: global, user',
        'smarthost.toml:5: suppression.at: is "data", but must be one of: rcpt, send',
        "smarthost.toml:6: suppression.after: is 20; allowed are 1 to 10 hard failures in a row",
        'smarthost.toml:7: suppression.ignore[0]: is "4.7", but must be the beginning of a status of class 5, as "5.7" '
        'or "5.2.2"',
        "smarthost.toml:8: suppression.expires: is not known; did you mean 'expiry'?",
    ]


def test_mistakes_in_delivery(tmp_path: Path) -> None:
    """Each key of [delivery] says what is allowed."""
    assert mistakes(tmp_path, "[delivery]\nmax_connections = 0\nmax_connection = 1\n") == [
        "smarthost.toml:2: delivery.max_connections: is 0, but must be a whole number of 1 or more",
        "smarthost.toml:3: delivery.max_connection: is not known; did you mean 'max_connections'?",
    ]


def test_mistakes_in_conversion(tmp_path: Path) -> None:
    """Each key of [conversion] says what is allowed."""
    assert mistakes(tmp_path, "[conversion]\neight_bit = true\nsmtputf8 = 'drop'\nutf8 = 'fail'\n") == [
        "smarthost.toml:2: conversion.eight_bit: is true, but must be one of: convert, fail",
        'smarthost.toml:3: conversion.smtputf8: is "drop", but must be one of: convert, fail',
        "smarthost.toml:4: conversion.utf8: is not known; did you mean 'smtputf8'?",
    ]
