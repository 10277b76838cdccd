"""The configuration: every key of the contract, every default, the environment, and how mistakes are told."""

import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from smarthost.automation_presets import automation_rules, read_presets
from smarthost.config import Config, ConfigError, DeliverySettings, DkimKey, Login, Mechanism, TlsFiles, load
from smarthost.mail.envelope import Priority, Recipient
from smarthost.mail.outcome import Stage
from smarthost.mail.route import Deliver, Host, NextHop, Route, Site, Source, TlsLevel
from smarthost.policy.admission import Auth, Listener, Submission, Tls
from smarthost.policy.automation import AutomationRule, Remedy, ReplyMatch
from smarthost.policy.backoff import Retry
from smarthost.policy.conversion import Conversion, Conversions
from smarthost.policy.limits import Limit, LimitMatch, LimitTable
from smarthost.policy.rate import Rate
from smarthost.policy.rewriting import Rewrite
from smarthost.policy.suppression import SuppressionPoint, SuppressionRules, SuppressionScope

CONF = Path(__file__).parent.parent / "conf"
HASH = "$argon2id$v=19$m=65536,t=3,p=4$HTJd5xv3rRMZTqh6uhdcfw$kzPce+DhYp3O2h3Sg8b0CoCFAObM38ok+ntWiCfqueo"


def load_text(folder: Path, text: str, **environ: str) -> Config:
    """Load a configuration that is written here."""
    file = folder / "smarthost.toml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return load(file, environ, fqdn=lambda: "relay.example.org")


def test_everything_has_a_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without file and environment the defaults of the contract hold."""
    monkeypatch.setattr("smarthost.config_source.DEFAULT_PATH", tmp_path / "none.toml")
    config = load(None, {}, fqdn=lambda: "relay.example.org")
    assert (config.hostname, config.postmaster) == ("relay.example.org", "postmaster@relay.example.org")
    assert (config.default_domain, str(config.data_directory)) == ("relay.example.org", "smarthost-data")
    assert config.listeners == (Listener("127.0.0.1:2587", tls=Tls.STARTTLS, auth=Auth.OPTIONAL),)
    assert config.submission == Submission()
    assert config.submission.max_message_size == 36_700_160
    assert config.retry == Retry((300, 600, 1200, 2400, 3600, 7200, 14400), False, 432000, 172800, (14400, 86400))
    assert (config.history_keep, config.http_address, config.shutdown_timeout) == (604800.0, "127.0.0.1:9587", 8.0)
    assert (config.fallback.name, config.fallback.deliver, config.fallback.tls) == ("mx", Deliver.MX, TlsLevel.MAY)
    assert (config.users, config.dkim, config.rewrites, config.limits, config.credentials) == ((), (), (), (), {})
    assert (config.log.format, config.log.level, config.dns.dnssec, config.dns.servers) == ("json", "info", "auto", ())
    assert config.source is None


def write_files(folder: Path) -> None:
    """Put the files in place that the whole configuration names."""
    for name in ("cert.pem", "key.pem", "dkim.pem", "ca.pem"):
        (folder / name).write_text("x")
    (folder / "secret").write_text("s3cret\n")
    (folder / "hash").write_text(HASH + "\n")
    (folder / "smarthost.toml").touch()
    for name in ("secret", "hash", "smarthost.toml"):
        (folder / name).chmod(0o600)


EVERY_KEY = """
    hostname = "Relay.Example.org"
    data_directory = "/var/lib/smarthost"
    postmaster = "postmaster@example.org"
    relayhost = "[smtp.example.net]:587"
    relayhost_tls = "verify"
    relayhost_auth = { username = "u", password_file = "FOLDER/secret", mechanism = "plain", allow_plaintext = false }
    relayhost_ca = "FOLDER/ca.pem"
    default_domain = "example.org"
    shutdown_timeout = "5s"
    automation_presets = false

    [[listener]]
    address = "0.0.0.0:587"
    protocol = "smtp"
    tls = "starttls"
    auth = "required"
    allow_plaintext_auth = false
    proxy_protocol = false
    trusted_proxies = []

    [[listener]]
    address = "[::]:465"
    tls = "implicit"
    auth = "required"

    [[listener]]
    address = "unix:/run/smarthost/smtp"
    tls = "none"
    auth = "none"

    [[listener]]
    address = "systemd:smtp"
    auth = "required"

    [tls]
    certificate = "FOLDER/cert.pem"
    key = "FOLDER/key.pem"
    client_ca = ""

    [submission]
    trusted_networks = ["127.0.0.0/8", "::1/128", "10.0.0.0/8"]
    max_message_size = "10MB"
    max_recipients = 100
    max_hops = 30
    bare_newlines = "reject"
    long_lines = "pass"
    add_missing_headers = false
    hide_client = true
    max_connections = 500
    max_connections_per_ip = 5
    min_free_space = 0

    [[user]]
    name = "app1"
    password = "HASH"
    allowed_senders = ["*@example.org"]
    message_rate = ["1000/h", "10000/d"]
    priority = "high"

    [[user]]
    name = "app2"
    password_file = "FOLDER/hash"

    [[dkim]]
    domain = "Example.org"
    selector = "20260101"
    key = "FOLDER/dkim.pem"

    [[rewrite]]
    match = "root@*"
    reverse_path = "alerts@example.org"
    header_from = "alerts@example.org"
    recipient = "admin@example.org"

    [[route]]
    name = "ses"
    match = { sender = ["*@example.org"], recipient = ["*@partner.example"], user = ["app1"], tag = ["bulk"] }
    relayhost = ["email-smtp.eu.example:587", "smtps://[backup.eu.example]"]
    tls = "encrypt"
    auth = { username = "u2", password = "p2" }
    ca = "FOLDER/ca.pem"
    source_address = ["192.0.2.1"]

    [[route]]
    name = "nowhere"
    match = { recipient = "*@example.invalid" }
    deliver = "discard"

    [[limit]]
    match = { site = "*.google.com", route = "ses" }
    max_connections = 20
    max_connection_rate = "100/min"
    message_rate = ["100/s", "10000/d"]
    max_messages_per_connection = 100
    max_recipients_per_transaction = 50
    idle_timeout = "60s"
    on_limit = "defer"

    [[automation]]
    name = "google-slow"
    match = { site = "*.google.com", reply = "4\\\\.7\\\\.28", route = "ses", stage = "mail" }
    threshold = "3/10min"
    action = "slow_down"
    message_rate = "1/min"
    max_connections = 2
    duration = "90min"

    [[automation]]
    match = { reply = "blocked" }
    action = "switch_route"
    route = "ses"

    [retry]
    schedule = ["1m", "2m"]
    soft_bounce = true
    lifetime = "1d"
    report_lifetime = "12h"
    delay_warning = []

    [delivery]
    max_connections = 300

    [conversion]
    eight_bit = "fail"
    smtputf8 = "fail"

    [suppression]
    enabled = true
    scope = "user"
    at = "send"
    expiry = "10d"
    after = 5
    ignore = ["5.7.1", "5.2"]

    [report]
    route = "ses"
    reverse_path = "bounces@example.org"

    [history]
    keep = "30d"

    [dns]
    servers = ["127.0.0.1:5353", "[::1]:53", "192.0.2.53"]
    dnssec = "off"

    [http]
    address = ""
    tokens = []

    [log]
    format = "text"
    level = "debug"
"""


def test_every_key_of_the_contract_is_read(tmp_path: Path) -> None:
    """Each key is accepted, ends in its place, and makes no warning when it is meant."""
    write_files(tmp_path)
    config = load_text(tmp_path, EVERY_KEY.replace("FOLDER", str(tmp_path)).replace("HASH", HASH))
    assert config.warnings == ()
    assert config.hostname == "relay.example.org"
    assert config.default_domain == "example.org"
    assert [listener.address for listener in config.listeners] == [
        "0.0.0.0:587",
        "[::]:465",
        "unix:/run/smarthost/smtp",
        "systemd:smtp",
    ]
    assert config.tls == TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert (config.submission.max_message_size, config.submission.min_free_space) == (10_000_000, 0)
    assert config.users[0].message_rate == ("1000/h", "10000/d")
    assert (config.users[0].priority, config.users[1].priority) == (Priority.HIGH, Priority.MEDIUM)
    assert config.users[1].password == HASH
    assert config.dkim == (DkimKey("example.org", "20260101", tmp_path / "dkim.pem"),)
    assert config.rewrites == (Rewrite("root@*", "alerts@example.org", "alerts@example.org", "admin@example.org"),)
    assert config.credentials == {
        "relayhost": Login("u", "s3cret", Mechanism.PLAIN),
        "ses": Login("u2", "p2"),
    }
    assert config.limits == (
        Limit(LimitMatch("*.google.com", "ses"), 20, "100/min", ("100/s", "10000/d"), 100, 50, 60.0, number=1),
    )
    assert LimitTable(config.limits)
    assert config.automation == (
        AutomationRule(
            "google-slow",
            ReplyMatch(r"4\.7\.28", "*.google.com", "ses", Stage.MAIL),
            Remedy.SLOW_DOWN,
            5400.0,
            Rate(3, 600.0),
            (Rate(1, 60.0),),
            2,
        ),
        AutomationRule("automation2", ReplyMatch("blocked"), Remedy.SWITCH_ROUTE, 3600.0, route="ses"),
    )
    assert automation_rules(config) == config.automation
    assert config.retry == Retry((60.0, 120.0), True, 86400.0, 43200.0, ())
    assert config.conversion == Conversions(Conversion.FAIL, Conversion.FAIL)
    assert config.delivery == DeliverySettings(300)
    assert config.suppression == SuppressionRules(
        True, SuppressionScope.USER, SuppressionPoint.SEND, 10 * 86400.0, 5, ("5.7.1", "5.2")
    )
    assert (config.report.route, config.report.reverse_path) == ("ses", "bounces@example.org")
    assert config.history_keep == 30 * 86400
    assert config.dns.servers == ("127.0.0.1:5353", "[::1]:53", "192.0.2.53")
    assert (config.http_address, config.log.format, config.log.level) == ("", "text", "debug")


def test_routes_are_made_of_rules_and_fallback(tmp_path: Path) -> None:
    """The routing table chooses by rule, else the relayhost, each with its hops, TLS level and login."""
    write_files(tmp_path)
    config = load_text(tmp_path, EVERY_KEY.replace("FOLDER", str(tmp_path)).replace("HASH", HASH))
    table = config.routes()
    assert set(table.routes) == {"ses", "nowhere", "relayhost"}
    ses = table.choose("a@example.org", Recipient("b@partner.example", "partner.example"), "app1", "bulk")
    assert ses.next_hops == (
        NextHop("email-smtp.eu.example", 587, by_mx=True),
        NextHop("backup.eu.example", 465, implicit_tls=True),
    )
    assert (ses.tls, ses.login, ses.source_address) == (TlsLevel.ENCRYPT, "ses", (Source("192.0.2.1"),))
    other = table.choose("a@example.org", Recipient("b@x.example", "x.example"), "app1", "")
    assert (other.name, other.tls, other.login) == ("relayhost", TlsLevel.VERIFY, "relayhost")
    assert other.ca_file == str(tmp_path / "ca.pem")
    gone = table.choose("", Recipient("b@example.invalid", "example.invalid"), "", "")
    assert gone.deliver is Deliver.DISCARD


@pytest.mark.parametrize(
    ("relayhost", "level"),
    [
        ("[smtp.example.net]:587", TlsLevel.VERIFY),
        ("127.0.0.1:2525", TlsLevel.MAY),
        ("[::1]:2525", TlsLevel.MAY),
        ("localhost:2525", TlsLevel.MAY),
        ("10.0.0.1", TlsLevel.VERIFY),
    ],
)
def test_the_default_tls_level(tmp_path: Path, relayhost: str, level: TlsLevel) -> None:
    """A relayhost is verified, unless it is this machine."""
    assert load_text(tmp_path, f'relayhost = "{relayhost}"').fallback.tls is level
    rule = load_text(tmp_path, f'[[route]]\nrelayhost = ["{relayhost}"]').route_rules[0]
    assert (rule.route.tls, rule.route.name) == (level, "route1")
    mixed = load_text(tmp_path, f'relayhost = ["{relayhost}", "[smtp.example.net]"]').fallback
    assert mixed.tls is TlsLevel.VERIFY


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """The representation of a configuration has neither passwords nor hashes in it."""
    write_files(tmp_path)
    shown = repr(load_text(tmp_path, EVERY_KEY.replace("FOLDER", str(tmp_path)).replace("HASH", HASH)))
    assert "s3cret" not in shown
    assert "'p2'" not in shown
    assert "argon2" not in shown


def test_the_shipped_file_says_the_defaults(tmp_path: Path) -> None:
    """conf/smarthost.toml loads as it is, and what it says is what holds without it."""
    shipped = load(CONF / "smarthost.toml", {}, fqdn=lambda: "relay.example.org")
    default = load_text(tmp_path, "")
    for field in Config.__struct_fields__:
        if field not in ("source", "warnings", "limits"):
            assert getattr(shipped, field) == getattr(default, field), field
    for route in (shipped.fallback, load_text(tmp_path, 'relayhost = "[a.example]"').fallback):
        found = load_text(tmp_path, "").limits
        site = _site_of(route)
        assert LimitTable(shipped.limits).for_site(site) == LimitTable(found).for_site(site)


def test_presets_are_on_unless_they_are_replaced(tmp_path: Path) -> None:
    """The shipped rules come after one's own; one of the same name takes the place, and one key switches all off."""
    names = [rule.name for rule in read_presets()]
    assert len(names) >= 5
    assert [rule.name for rule in automation_rules(load_text(tmp_path, ""))] == names
    own = f"[[automation]]\nname = '{names[1]}'\nmatch = {{ reply = 'x' }}\naction = 'defer'"
    rules = automation_rules(load_text(tmp_path, own))
    assert [rule.name for rule in rules] == [names[1], names[0], *names[2:]]
    assert rules[0].action is Remedy.DEFER
    assert automation_rules(load_text(tmp_path, "automation_presets = false")) == ()


def test_the_presets_beside_the_configuration_are_those_of_the_package() -> None:
    """Who reads conf/automation.toml reads what is in use, and each rule there has its source above it."""
    text = (CONF / "automation.toml").read_text()
    assert text == (CONF.parent / "src/smarthost/automation.toml").read_text()
    assert all("https://" in rule.partition("name =")[0] for rule in text.split("[[automation]]")[1:])


def _site_of(route: Route) -> Site:
    return Site("a.example", (Host("a.example", ()),), route, 0.0)


def test_the_shipped_file_names_every_key(tmp_path: Path) -> None:
    """Each key that this release knows stands in conf/smarthost.toml, if only as an example."""
    text = (CONF / "smarthost.toml").read_text()
    missing = [key for key in _keys(tomllib.loads(textwrap.dedent(EVERY_KEY))) if f"{key} =" not in text]
    assert set(missing) <= {"mechanism", "allow_plaintext", "password_file"}


def _keys(table: dict[str, Any]) -> set[str]:
    found = set()
    for key, value in table.items():
        tables = (
            [value]
            if isinstance(value, dict)
            else [v for v in value if isinstance(v, dict)]
            if isinstance(value, list)
            else []
        )
        if not tables:
            found.add(key)
        for inner in tables:
            found |= _keys(inner)
    return found


def test_the_minimal_file_loads() -> None:
    """conf/minimal.toml has a login and one user, and warns of its certificate and its password in the clear only."""
    config = load(CONF / "minimal.toml", {})
    assert config.fallback.login == "relayhost"
    assert [user.name for user in config.users] == ["app1"]
    assert [listener.auth for listener in config.listeners] == [Auth.REQUIRED]
    assert "self-signed" in config.warnings[-1]
    assert all("self-signed" in warning or "every user" in warning for warning in config.warnings)


def test_the_file_is_looked_for_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An argument goes before SMARTHOST_CONFIG, and that before the default place."""
    for name in ("argument", "variable", "default"):
        (tmp_path / name).write_text(f'hostname = "{name}.example"')
    monkeypatch.setattr("smarthost.config_source.DEFAULT_PATH", tmp_path / "default")
    environ = {"SMARTHOST_CONFIG": str(tmp_path / "variable")}
    assert load(tmp_path / "argument", environ).hostname == "argument.example"
    assert load(None, environ).hostname == "variable.example"
    assert load(None, {}).hostname == "default.example"


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """A file that was asked for and is missing is an error, not the defaults."""
    with pytest.raises(ConfigError) as caught:
        load(None, {"SMARTHOST_CONFIG": str(tmp_path / "gone.toml")})
    assert caught.value.render() == f"{tmp_path}/gone.toml: cannot be read: No such file or directory"


def test_the_environment_sets_any_key(tmp_path: Path) -> None:
    """Text, numbers, truth values, arrays, tables and elements of arrays of tables come from variables."""
    config = load_text(
        tmp_path,
        """
        [submission]
        max_hops = 7
        max_recipients = 7
        """,
        SMARTHOST__HOSTNAME="mail.example.org",
        SMARTHOST__RELAYHOST="[smtp.example.net]:587",
        SMARTHOST__RELAYHOST_AUTH__USERNAME="12345",
        SMARTHOST__RELAYHOST_AUTH__PASSWORD="true",
        SMARTHOST__SUBMISSION__MAX_RECIPIENTS="500",
        SMARTHOST__SUBMISSION__HIDE_CLIENT="true",
        SMARTHOST__SUBMISSION__TRUSTED_NETWORKS='["10.0.0.0/8", "127.0.0.0/8"]',
        SMARTHOST__SUBMISSION__MAX_MESSAGE_SIZE="10MiB",
        SMARTHOST__RETRY__DELAY_WARNING="[]",
        SMARTHOST__RETRY__SCHEDULE="5m",
        SMARTHOST__USER__0__NAME="app1",
        SMARTHOST__USER__0__PASSWORD=HASH,
        SMARTHOST__LISTENER='[{ address = "0.0.0.0:587", auth = "required" }]',
        SMARTHOST__LOG__LEVEL="debug",
        SMARTHOST="unrelated",
        SMARTHOST_PORT="tcp://10.0.0.1:587",
    )
    assert config.hostname == "mail.example.org"
    assert config.fallback.next_hops == (NextHop("smtp.example.net", 587),)
    assert config.credentials["relayhost"] == Login("12345", "true")
    assert (config.submission.max_recipients, config.submission.max_hops) == (500, 7)
    assert config.submission.hide_client
    assert config.submission.trusted_networks == ("10.0.0.0/8", "127.0.0.0/8")
    assert config.submission.max_message_size == 10 * 1024 * 1024
    assert (config.retry.delay_warning, config.retry.schedule) == ((), (300.0,))
    assert (config.users[0].name, config.users[0].password) == ("app1", HASH)
    assert config.listeners == (Listener("0.0.0.0:587", auth=Auth.REQUIRED),)
    assert config.log.level == "debug"


def test_a_list_of_relayhosts_comes_from_the_environment(tmp_path: Path) -> None:
    """An array in a variable is a TOML value, though a bracketed host is not."""
    config = load_text(tmp_path, "", SMARTHOST__RELAYHOST='["[a.example]", "[b.example]:587"]')
    assert config.fallback.next_hops == (NextHop("a.example"), NextHop("b.example", 587))


@pytest.mark.parametrize(
    ("fqdn", "own", "hostname"),
    [("Mail.example.org", "x", "mail.example.org"), ("localhost", "box", "box"), ("not a name", "x", "localhost")],
)
def test_this_machines_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fqdn: str, own: str, hostname: str
) -> None:
    """Without a hostname the machine's whole name is taken, else its short one; a name that is none is localhost."""
    monkeypatch.setattr("socket.getfqdn", lambda: fqdn)
    monkeypatch.setattr("socket.gethostname", lambda: own)
    (tmp_path / "empty.toml").touch()
    assert load(tmp_path / "empty.toml", {}).hostname == hostname


def test_tls_of_mx_delivery(tmp_path: Path) -> None:
    """MX delivery goes by [tls_out] where a route says nothing, and MTA-STS is heeded unless that is switched off."""
    plain = load_text(tmp_path, "[[route]]\ndeliver = 'mx'\nname = 'a'")
    assert (plain.fallback.tls, plain.fallback.mta_sts) == (TlsLevel.MAY, True)
    assert plain.route_rules[0].route.mta_sts
    text = """
        [tls_out]
        level = "dane"
        mta_sts = false

        [[route]]
        deliver = "mx"
        mta_sts = true
        tls = "encrypt"
        match = { recipient = "*@a.example" }

        [[route]]
        deliver = "mx"
        match = { recipient = "*@b.example" }

        [[route]]
        relayhost = "[smtp.example.net]"
    """
    config = load_text(tmp_path, text)
    assert (config.fallback.tls, config.fallback.mta_sts) == (TlsLevel.DANE, False)
    found = [(rule.route.tls, rule.route.mta_sts) for rule in config.route_rules]
    assert found == [(TlsLevel.ENCRYPT, True), (TlsLevel.DANE, False), (TlsLevel.VERIFY, False)]


def test_client_certificates(tmp_path: Path) -> None:
    """A relayhost, and a route, may have a certificate that we show."""
    pem, key = tmp_path / "client.pem", tmp_path / "client.key"
    pem.write_text("x")
    key.write_text("x")
    text = f"""
        relayhost = "[smtp.example.net]"
        relayhost_client_certificate = "{pem}"
        relayhost_client_key = "{key}"

        [[route]]
        relayhost = "[other.example.net]"
        client_certificate = "{pem}"
        client_key = "{key}"
    """
    config = load_text(tmp_path, text)
    for route in (config.fallback, config.route_rules[0].route):
        assert (route.client_certificate, route.client_key) == (str(pem), str(key))
