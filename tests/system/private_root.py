"""A folder that a mail server takes for the whole machine: its programs, their libraries, and users of its own."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from outside import need
from relay_process import is_listening, wait_until

# Packages that cannot be installed beside Postfix are unpacked here.
UNPACKED = Path(os.environ.get("SMARTHOST_TEST_SERVERS", Path(__file__).parents[2] / ".ci/servers"))
USERS = ("nobody", "Debian-exim", "opensmtpd", "opensmtpq", "keeper")
FIRST_UID = 940
KEEPER = FIRST_UID + USERS.index("keeper")
_LIBRARY = re.compile(r"(?:=> |^\s*)(/\S+) \(0x", re.MULTILINE)


def need_unpacked(program: str, package: str) -> None:
    """Skip the test unless a package's program has been unpacked, and can run."""
    need((UNPACKED / program).exists(), f"{package}, unpacked in {UNPACKED}")
    missing = [line for line in _libraries_of(UNPACKED / program, as_text=True) if "not found" in line]
    need(not missing, f"libraries of {package}: {' '.join(missing)}")


def _libraries_of(program: Path, *, as_text: bool = False) -> list[str]:
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=20, check=False).stdout
    return listed.splitlines() if as_text else _LIBRARY.findall(listed)


class CagedServer:
    """One mail server in the foreground, with `folder` as its root; what it wrote to its standard error is its log.

    `programs` are copied from where packages are unpacked, or from this machine where they begin with "/".
    """

    name = "a server"

    def __init__(self, folder: Path, programs: tuple[str, ...], command: tuple[str, ...], port: int) -> None:
        """Build the folder; nothing runs yet."""
        self.folder, self.port = folder, port
        self._command = command
        self._programs = programs
        self.running: subprocess.Popen[bytes] | None = None
        folder.chmod(0o755)
        for name in ("dev", "etc", "got", "tmp", "run", "var"):
            (folder / name).mkdir(mode=0o755)
        (folder / "var/run").symlink_to("/run")
        (folder / "tmp").chmod(0o1777)
        os.chown(folder / "got", KEEPER, KEEPER)
        (folder / "dev/null").touch(0o666)
        (folder / "dev/null").chmod(0o666)
        for program in programs:
            self._copy(Path(program) if program.startswith("/") else UNPACKED / program, program)
        rows = [("root", 0), *((user, FIRST_UID + number) for number, user in enumerate(USERS))]
        self.write("etc/passwd", "".join(f"{user}:x:{uid}:{uid}::/:/bin/sh\n" for user, uid in rows))
        self.write("etc/group", "".join(f"{user}:x:{uid}:\n" for user, uid in rows))
        self.write("etc/hosts", "127.0.0.1 localhost\n")
        self.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
        self.write("etc/resolv.conf", "lookup file\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def _copy(self, source: Path, program: str) -> None:
        for path, target in [(source, program), *((Path(found), found) for found in _libraries_of(source))]:
            place = self.folder / target.lstrip("/")
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
                shutil.copy2(path.resolve(), place)

    def write(self, name: str, text: str) -> None:
        """Write a file that the server reads."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        (self.folder / name).write_text(text)

    def own(self, name: str, user: str, mode: int = 0o700) -> None:
        """Make a folder that belongs to one of the server's users."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        uid = FIRST_UID + USERS.index(user) if user != "root" else 0
        os.chown(place, uid, uid)
        place.chmod(mode)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self.folder / "server.log").open("wb") as log:
            self.running = subprocess.Popen(
                ["chroot", str(self.folder), *self._command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
            )
        wait_until(self._is_up, f"{self.name} takes connections", 20)

    def _is_up(self) -> bool:
        assert self.running is not None
        if self.running.poll() is not None:
            raise AssertionError(f"{self.name} ended: {self.log()}")
        return is_listening(self.port)

    def log(self) -> str:
        """Give what it wrote of its work."""
        return (self.folder / "server.log").read_text(errors="replace")

    def stored(self) -> list[bytes]:
        """Give every message that it delivered into a folder, as it stands there."""
        return [path.read_bytes() for path in sorted((self.folder / "got/new").glob("*"))]

    def close(self) -> None:
        """End it with all its children."""
        if self.running is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.running.pid, number)
                self.running.wait(10)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.running = None
