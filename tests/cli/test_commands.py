"""Commands as a person runs them: real processes for exit codes, the same code in this process for what they print."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_operations import ENTRY, ID, NUMBER, FakeOperations, serving

from smarthost import __version__
from smarthost.__main__ import COMMANDS, main
from smarthost.crypto.password import verify_password
from smarthost.network import dns_query
from smarthost.spool.store import Filter


def run(
    *arguments: str, given: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process."""
    return subprocess.run(
        [sys.executable, "-m", "smarthost", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **(environment or {})},
    )


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[FakeOperations]:
    """A relay that answers in `tmp_path`."""
    with serving(tmp_path) as operations:
        yield operations


def test_version_help_and_usage() -> None:
    """--version and --help say what they shall and exit 0; nothing at all is a usage error with the help."""
    version = run("--version")
    assert (version.returncode, version.stdout) == (0, f"smarthost {__version__}\n")
    nothing = run()
    assert (nothing.returncode, nothing.stdout) == (64, "")
    assert all(command in nothing.stderr for command in COMMANDS)
    assert main(["--help"]) == 0


def test_start_is_quick() -> None:
    """The command line without a command imports none of the heavy parts."""
    heavy = ("asyncio", "msgspec", "cryptography")
    code = f"import sys, smarthost.__main__; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_is_not_used_is_not_loaded() -> None:
    """A relay whose HTTP door nobody has knocked at, and that asks nobody over HTTP, has loaded nothing for either."""
    heavy = ("aiohttp", "yarl", "litestar", "uvicorn")
    code = f"import sys, smarthost.server; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("quee",),
        ("queue",),
        ("queue", "burn"),
        ("queue", "list", "--older", "soon"),
        ("queue", "list", "--why", "because"),
        ("queue", "list", "--send", "x"),
        ("queue", "list", "12"),
        ("queue", "delete"),
        ("queue", "delete", "--all", "--sender", "x@example.org"),
        ("queue", "export"),
        ("trace",),
        ("trace", "X"),
        ("why", "X"),
        ("suspend", "--for", "2h"),
        ("suspend", "route", "x", "--for", "0s", "--data-directory", "/nonexistent"),
        ("explain",),
        ("suspend", "site"),
        ("suspend", "planet", "x"),
        ("resume",),
        ("dkim", "generate", "--domain", "example.org"),
        ("sink", "--login", "nobody"),
        ("sink", "--listen", "nowhere"),
        ("serve", "now"),
    ],
)
def test_misuse_exits_64(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A command given wrongly is one clear sentence on standard error and exit 64."""
    try:
        exit_code = main(arguments)
    except SystemExit as error:
        exit_code = int(error.code or 0)
    printed = capsys.readouterr()
    assert (exit_code, printed.out) == (64, "")
    assert printed.err.startswith("smarthost")
    assert "Traceback" not in printed.err


def test_a_broken_configuration_says_how_to_do_without(tmp_path: Path) -> None:
    """Whoever has a mistake in the file may still have to hold mail at once: the way is named, and the exit is 78."""
    (tmp_path / "c.toml").write_text("nonsense = 1\n")
    ended = run("queue", "hold", "--all", "--config", str(tmp_path / "c.toml"))
    assert ended.returncode == 78 and "c.toml:1: nonsense" in ended.stderr
    assert ended.stderr.endswith("--data-directory DIR finds the running relay without it\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help of each command exits 0 and says how it is used."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: smarthost {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ("queue", "list"),
        ("trace", ID),
        ("reload",),
        ("queue", "hold", ID),
        ("suspend",),
        ("resume", "user", "x"),
        ("explain", "x@example.org"),
    ],
)
def test_relay_that_is_down_exits_69(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """A command that needs the relay says that it is not running."""
    ended = run(*arguments, "--data-directory", str(tmp_path))
    assert (ended.returncode, ended.stdout) == (69, "")
    assert ended.stderr.startswith("smarthost: the relay is not running")
    assert len(ended.stderr.splitlines()) == 1


def test_wrong_configuration_exits_78(tmp_path: Path) -> None:
    """What is wrong is shown with file, line and key, by check and by serve."""
    config = tmp_path / "smarthost.toml"
    config.write_text('hostname = "relay.example.org"\n[retry]\nlifetime = "long"\nlifetme = 3\n')
    for command in ("check", "serve"):
        ended = run(command, "--config", str(config))
        assert (ended.returncode, ended.stdout) == (78, "")
        assert f"{config}:3: retry.lifetime: " in ended.stderr
        assert f"{config}:4: retry.lifetme: " in ended.stderr
        assert "Traceback" not in ended.stderr


def test_check_looks_for_source_addresses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address to send from that this machine does not have is a warning; it may come up later."""
    config = tmp_path / "smarthost.toml"
    config.write_text(
        f'hostname = "relay.example.org"\ndata_directory = "{tmp_path}/data"\n'
        '[[route]]\ndeliver = "mx"\nsource_address = ["127.0.0.2", "192.0.2.77"]\n'
    )
    assert main(["check", "--config", str(config)]) == 0
    said = capsys.readouterr()
    assert said.out == "ok\n" and "127.0.0.2" not in said.err
    assert "warning: source_address 192.0.2.77 cannot be used: " in said.err


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A good configuration is "ok"; a DKIM key or a certificate that cannot be read is not."""
    key, config = tmp_path / "k.pem", tmp_path / "smarthost.toml"
    config.write_text(
        f'hostname = "relay.example.org"\nrelayhost = "[127.0.0.1]:25"\ndata_directory = "{tmp_path}/data"\n'
        f'[[dkim]]\ndomain = "example.org"\nselector = "s1"\nkey = "{key}"\n'
    )
    command = ["dkim", "generate", "--domain", "example.org", "--selector", "s1", "--algorithm", "ed25519"]
    assert main([*command, "--out", str(key)]) == 0
    assert "k=ed25519; p=" in capsys.readouterr().out
    assert main(["check", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "ok\n"
    assert main(["dkim", "show", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "s1._domainkey.example.org"
    key.write_text("nothing")
    assert main(["check", "--config", str(config), "--json"]) == 78
    assert "holds no private key" in json.loads(capsys.readouterr().out)["problems"][0]


def test_check_tells_of_dane_without_a_resolver_that_is_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distant resolver of the system proves nothing to us; one on this machine, or one that is named, does."""
    resolv_conf, config = tmp_path / "resolv.conf", tmp_path / "smarthost.toml"
    monkeypatch.setattr(dns_query, "RESOLV_CONF", str(resolv_conf))
    text = f'hostname = "relay.example.org"\ndata_directory = "{tmp_path}/data"\n[tls_out]\nlevel = "dane"\n'
    for resolver, more, is_told in (
        ("192.0.2.53", "", True),
        ("127.0.0.1", "", False),
        ("192.0.2.53", '[dns]\nservers = ["192.0.2.54"]\n', False),
        ("192.0.2.53", '[dns]\ndnssec = "on"\n', False),
    ):
        resolv_conf.write_text(f"nameserver {resolver}\n")
        config.write_text(text + more)
        assert main(["check", "--config", str(config)]) == 0
        assert ('dane" proves nothing' in capsys.readouterr().err) is is_told, (resolver, more)


def test_check_names_a_client_certificate_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the relay would show to its upstream is read as the relay would."""
    certificate, config = tmp_path / "client.pem", tmp_path / "smarthost.toml"
    certificate.write_text("nothing")
    config.write_text(
        f'hostname = "relay.example.org"\ndata_directory = "{tmp_path}/data"\nrelayhost = "[smtp.example.net]:587"\n'
        f'relayhost_client_certificate = "{certificate}"\nrelayhost_client_key = "{certificate}"\n'
    )
    assert main(["check", "--config", str(config)]) == 78
    assert str(certificate) in capsys.readouterr().err


def test_generate_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that is there stays, and one for a name that cannot be in DNS is not left behind."""
    key = tmp_path / "k.pem"
    command = ["dkim", "generate", "--selector", "s1", "--algorithm", "ed25519", "--out", str(key)]
    assert main([*command, "--domain", "bad domain"]) == 64
    assert not key.exists()
    assert main([*command, "--domain", "example.org"]) == 0
    before = key.read_bytes()
    assert main([*command, "--domain", "example.org"]) == os.EX_CANTCREAT
    assert key.read_bytes() == before
    assert "exists already" in capsys.readouterr().err


def test_generate_makes_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of a new key need not be there; one that cannot be made is told by name, with exit status 73."""
    command = ["dkim", "generate", "--domain", "example.org", "--selector", "s1", "--algorithm", "ed25519", "--out"]
    assert main([*command, str(tmp_path / "new" / "dkim" / "k.pem")]) == 0
    assert (tmp_path / "new" / "dkim" / "k.pem").stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").touch()
    assert main([*command, str(tmp_path / "file" / "k.pem")]) == os.EX_CANTCREAT
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_password_is_hashed_from_standard_input() -> None:
    """The first line is the password, without its line end; none at all is a usage error."""
    ended = run("user", "hash", given="geheim wört\nmore\n")
    assert ended.returncode == 0
    assert verify_password(ended.stdout.strip(), "geheim wört")
    assert run("user", "hash", given="\n").returncode == 64


def test_list(relay: FakeOperations, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Filters travel to the relay; people get a table that says when there is more, programs JSON lines."""
    relay.rows = 3
    where = ["--data-directory", str(tmp_path)]
    filters = ["--sender", "*@example.org", "--older", "2h", "--why", "retry", ID.lower()]
    assert main(["queue", "list", *where, "--limit", "2", *filters]) == 0
    printed = capsys.readouterr().out
    assert printed.count(ID) == 2
    assert "these are the first 2" in printed
    assert relay.asked == [("list", Filter(sender="*@example.org", older=7200, why="retry", ids=(NUMBER,)), 3)]
    assert main(["queue", "list", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == ENTRY
    relay.rows = 0
    assert main(["queue", "list", *where]) == 0
    assert capsys.readouterr().out == "nothing is queued\n"


def test_changes(relay: FakeOperations, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bulk verbs send filter and dry run, and say what was done."""
    where = ["--data-directory", str(tmp_path)]
    assert main(["queue", "hold", "--user", "app*", "--dry-run", *where]) == 0
    assert capsys.readouterr().out == "entries 1, messages 1: nothing was done (--dry-run)\n"
    assert main(["queue", "delete", "--all", *where]) == 0
    assert capsys.readouterr().out == "entries 1, messages 1: deleted\n"
    assert relay.asked == [("hold", Filter(user="app*"), True), ("delete", Filter(), False)]
    assert main(["queue", "fail", ID, *where]) == os.EX_SOFTWARE
    assert capsys.readouterr().err == "smarthost: the relay's log has the reason\n"


def test_show_trace_why_status(relay: FakeOperations, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each tells of one message in words, and in JSON when asked; an unknown message is exit 66."""
    where = ["--data-directory", str(tmp_path)]
    for arguments, word in (
        (["queue", "show", ID], "gives up  2026-01-06"),
        (["trace", ID], "accepted  from <app@example.org>"),
        (["why", ID], "waits for  It is tried again."),
        (["status"], "active 1"),
    ):
        assert main([*arguments, *where]) == 0
        assert word in capsys.readouterr().out
        assert main([*arguments, *where, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)
    assert main(["trace", "0" * 12, *where]) == os.EX_NOINPUT
    assert main(["queue", "show", "0" * 12, *where]) == os.EX_NOINPUT


def test_export(relay: FakeOperations, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Content goes to files, octet for octet, or to standard output."""
    where = ["--data-directory", str(tmp_path)]
    assert main(["queue", "export", "--all", "--out", str(tmp_path / "out"), *where]) == 0
    assert (tmp_path / "out" / f"{ID}.eml").read_bytes() == b"Subject: \xff\r\n\r\nbody\r\n"
    assert json.loads((tmp_path / "out" / f"{ID}.json").read_text())["recipients"] == ["you@example.net"]
    assert (tmp_path / "out" / f"{ID}.eml").stat().st_mode & 0o777 == 0o600
    capfdbinary.readouterr()
    assert main(["queue", "export", ID, *where]) == 0
    assert capfdbinary.readouterr().out == b"Subject: \xff\r\n\r\nbody\r\n"


def test_reload(relay: FakeOperations, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration that the relay refused is exit 78 with the reasons."""
    where = ["--data-directory", str(tmp_path)]
    assert main(["reload", *where]) == 0
    assert capsys.readouterr().out == "reloaded\n"
    relay.problems = ["smarthost.toml:3: retry.lifetime: is wrong"]
    assert main(["reload", *where]) == 78
    assert capsys.readouterr().err == "smarthost.toml:3: retry.lifetime: is wrong\n"


def test_reader_that_has_seen_enough(relay: FakeOperations, tmp_path: Path) -> None:
    """A pipe that is closed early, as by head, is no error."""
    relay.rows = 20_000
    command = [sys.executable, "-m", "smarthost", "queue", "list", "--json", "--data-directory", str(tmp_path)]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout is not None and listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == 0
    assert time.monotonic() - started < 10
