"""A signed zone on bind9, and a validating resolver, unbound, before it: processes of the test in its own folder."""

import shutil
import subprocess
from pathlib import Path

from relay_process import free_port, is_listening, wait_until

COMMANDS = ("named", "unbound", "dnssec-keygen", "dnssec-signzone")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
HEAD = "$TTL 300\n@ IN SOA ns root 1 3600 600 86400 60\n@ IN NS ns\nns IN A 127.0.0.1\n"
NAMED = """
options {{
  directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; pid-file none; session-keyfile "{folder}/session.key"; notify no;
}};
controls {{}};
zone "dane.test" {{ type primary; file "{folder}/dane.test.signed"; }};
zone "plain.test" {{ type primary; file "{folder}/plain.test"; }};
"""
UNBOUND = """
server:
  interface: 127.0.0.1
  port: {port}
  do-ip6: no
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  do-not-query-localhost: no
  module-config: "validator iterator"
  local-zone: "test." nodefault
  trust-anchor-file: "{folder}/dsset-dane.test."
remote-control:
  control-enable: no
stub-zone:
  name: "dane.test"
  stub-addr: 127.0.0.1@{source}
stub-zone:
  name: "plain.test"
  stub-addr: 127.0.0.1@{source}
"""


class SignedZone:
    """The zones dane.test, signed, and plain.test, not signed; `resolver` is where the validating resolver answers.

    A line of dane.test that begins with "!" is changed after it was signed, so that it is bogus.
    """

    def __init__(self, folder: Path, dane: list[str], plain: list[str]) -> None:
        """Write and sign the zones; nothing runs yet."""
        folder.mkdir()
        self.folder = folder
        self.port, self.resolver_port = free_port(), free_port()
        self.resolver = f"127.0.0.1:{self.resolver_port}"
        bogus = [line[1:] for line in dane if line.startswith("!")]
        (folder / "dane.test").write_text(HEAD + "\n".join(line.lstrip("!") for line in dane) + "\n")
        (folder / "plain.test").write_text(HEAD + "\n".join(plain) + "\n")
        for kind in ([], ["-f", "KSK"]):
            self._run("dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", *kind, "-n", "ZONE", "dane.test")
        self._run("dnssec-signzone", "-q", "-S", "-O", "full", "-o", "dane.test", "dane.test")
        signed = folder / "dane.test.signed"
        text = signed.read_text()
        for line in bogus:
            # The signer writes the digits in groups of 56.
            digits = line.split()[-1].upper()[:56]
            assert text.count(digits) == 1, digits
            text = text.replace(digits, digits[:-1] + ("0" if digits[-1] != "0" else "1"))
        signed.write_text(text)
        (folder / "named.conf").write_text(NAMED.format(folder=folder, port=self.port))
        (folder / "unbound.conf").write_text(UNBOUND.format(folder=folder, port=self.resolver_port, source=self.port))
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both, and wait until both answer."""
        self._start("named", "-g", "-n", "1", "-c", str(self.folder / "named.conf"))
        self._start("unbound", "-d", "-c", str(self.folder / "unbound.conf"))
        wait_until(lambda: all(map(is_listening, (self.port, self.resolver_port))) or self._ended(), "DNS answers", 20)

    def close(self) -> None:
        """End both."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running.append(subprocess.Popen([_path(name), *arguments], stdout=log, stderr=log, cwd=self.folder))

    def _ended(self) -> bool:
        if any(process.poll() is not None for process in self.running):
            logs = "\n".join(log.read_text()[-2000:] for log in self.folder.glob("*.log"))
            raise AssertionError(f"a name server ended:\n{logs}")
        return False

    def _run(self, name: str, *arguments: str) -> None:
        command = [_path(name), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def _path(name: str) -> str:
    found = shutil.which(name, path=PATH)
    assert found is not None, name
    return found
