"""Postfix as a peer: an instance of its own below a temporary folder, in the foreground."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from relay_process import free_port, is_listening, wait_until

MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n  -  n  60  1  pickup
cleanup   unix  n  -  n  -  0  cleanup
qmgr      unix  n  -  n  300 1  qmgr
tlsmgr    unix  -  -  n  1000? 1 tlsmgr
rewrite   unix  -  -  n  -  -  trivial-rewrite
bounce    unix  -  -  n  -  0  bounce
defer     unix  -  -  n  -  0  bounce
trace     unix  -  -  n  -  0  bounce
proxymap  unix  -  -  n  -  -  proxymap
smtp      unix  -  -  n  -  -  smtp
showq     unix  n  -  n  -  -  showq
error     unix  -  -  n  -  -  error
retry     unix  -  -  n  -  -  error
anvil     unix  -  -  n  -  1  anvil
scache    unix  -  -  n  -  1  scache
virtual   unix  -  n  n  -  -  virtual
postlog   unix-dgram n - n - 1 postlogd
"""
MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = {daemons}
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log/maillog
maillog_file_prefixes = {folder}
myhostname = postfix.test
mydestination =
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{upstream}
"""
# Mail for example.com is kept.
KEEPING = """\
virtual_mailbox_domains = example.com
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:got/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
virtual_mailbox_limit = 0
message_size_limit = 50000000
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ nobody@example.com = 550 5.1.1 unknown }} }}
"""
KEEPER = 944


class Postfix:
    """One Postfix that relays everything to a port of this machine; `settings` are more lines for main.cf."""

    def __init__(self, folder: Path, upstream: int, settings: str = "") -> None:
        """Write the configuration; nothing runs yet. The folder has to be open to Postfix's user."""
        self.folder = folder
        self.port = free_port()
        self.running: subprocess.Popen[bytes] | None = None
        daemons = next(
            (path for path in ("/usr/lib/postfix/sbin", "/usr/libexec/postfix") if os.path.isdir(path)), "/usr/sbin"
        )
        for name in ("etc", "queue", "data", "log"):
            (folder / name).mkdir(mode=0o755)
        shutil.chown(folder / "data", "postfix", "postfix")
        (folder / "etc/main.cf").write_text(MAIN.format(folder=folder, daemons=daemons, upstream=upstream) + settings)
        (folder / "etc/master.cf").write_text(MASTER.format(port=self.port))

    def start(self) -> None:
        """Start it in the foreground, and wait until it takes connections."""
        with (self.folder / "start.log").open("wb") as log:
            self.running = subprocess.Popen(
                ["/usr/sbin/postfix", "-c", str(self.folder / "etc"), "start-fg"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_until(self._is_up, "Postfix takes connections", 20)

    def _is_up(self) -> bool:
        assert self.running is not None
        if self.running.poll() is not None:
            raise AssertionError(f"Postfix ended: {(self.folder / 'start.log').read_text()}\n{self.log()}")
        return is_listening(self.port)

    def log(self) -> str:
        """Give Postfix's mail log."""
        path = self.folder / "log/maillog"
        return path.read_text(errors="replace") if path.exists() else ""

    def keep(self) -> None:
        """Have mail for example.com kept in a folder; to be called before the start."""
        (self.folder / "got").mkdir(mode=0o755)
        os.chown(self.folder / "got", KEEPER, KEEPER)
        with (self.folder / "etc/main.cf").open("a") as config:
            config.write(KEEPING.format(folder=self.folder, uid=KEEPER))

    def stored(self) -> list[bytes]:
        """Give every message that it kept, as it stands there."""
        return [path.read_bytes() for path in sorted((self.folder / "got/new").glob("*"))]

    def close(self) -> None:
        """Stop it with all its children."""
        if self.running is None:
            return
        command = ["/usr/sbin/postfix", "-c", str(self.folder / "etc"), "stop"]
        subprocess.run(command, capture_output=True, timeout=30, check=False)
        try:
            self.running.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.running.pid, signal.SIGKILL)
            self.running.wait(10)
        self.running = None
