"""OpenSMTPD as an upstream: an instance of its own, that keeps mail for example.com and relays the rest."""

from pathlib import Path

from private_root import CagedServer
from relay_process import free_port

# TLS is left out: the handshake of 6.8 fails with OpenSSL 3 ("missing private key").
CONFIG = """\
table keepers {{ "@" = "keeper" }}
queue ttl 1h
smtp max-message-size "50M"
listen on 127.0.0.1 port {port} hostname opensmtpd.test
action "keep" maildir "/got" virtual <keepers>
action "onward" relay host "smtp://127.0.0.1:{upstream}"
match from any for rcpt-to "nobody@example.com" reject
match from any for domain "example.com" action "keep"
match from any for any action "onward"
"""
PROGRAMS = (
    "usr/sbin/smtpd",
    "usr/libexec/opensmtpd/mail.maildir",
    "usr/libexec/opensmtpd/lockspool",
    "/bin/sh",
)


class OpenSmtpd(CagedServer):
    """One OpenSMTPD."""

    name = "OpenSMTPD"

    def __init__(self, folder: Path, upstream: int) -> None:
        """Write the configuration; nothing runs yet. What is not for example.com goes on to the port `upstream`."""
        super().__init__(folder, PROGRAMS, ("/usr/sbin/smtpd", "-d", "-v", "-f", "/etc/smtpd.conf"), free_port())
        self.own("var/spool/smtpd", "root", 0o711)
        self.own("var/lib/opensmtpd/empty", "root", 0o755)
        self.write("etc/smtpd.conf", CONFIG.format(port=self.port, upstream=upstream))
        (self.folder / "etc/smtpd.conf").chmod(0o600)
