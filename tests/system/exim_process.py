"""Exim as an upstream: an instance of its own, that keeps mail for example.com and relays the rest."""

from pathlib import Path

from private_root import CagedServer
from relay_process import PASSWORD, USER, free_port

CONFIG = """\
primary_hostname = exim.test
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = /spool
log_file_path = /log/%slog
pid_file_path = /run/exim.pid
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
never_users =
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
dsn_advertise_hosts = *
accept_8bitmime = true
smtp_accept_max = 100
log_selector = +received_recipients +smtp_confirmation +tls_peerdn +smtp_connection +incoming_port +8bitmime \
  +smtp_protocol_error +smtp_syntax_error +pipelining
acl_smtp_mail = see
acl_smtp_rcpt = recipient
acl_smtp_data = accept_it
{tls}
{settings}

begin acl
see:
  accept logwrite = heard $smtp_command
recipient:
  warn logwrite = heard $smtp_command
  deny message = no such user here
       local_parts = nobody
  accept
accept_it:
  accept

begin routers
keep:
  driver = accept
  domains = example.com
  transport = keep
onward:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = onward

begin transports
keep:
  driver = appendfile
  maildir_format
  directory = /got
  create_directory
  user = keeper
  group = keeper
onward:
  driver = smtp
  port = {upstream}
  hosts_try_prdr =

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{ {{eq{{$auth2}}{{{user}}}}} {{eq{{$auth3}}{{{password}}}}} }} }}
  server_set_id = $auth2
  server_advertise_condition = ${{if def:tls_in_cipher}}
"""
TLS = "tls_advertise_hosts = *\ntls_certificate = /etc/cert.pem\ntls_privatekey = /etc/key.pem"


class Exim(CagedServer):
    """One Exim; `settings` are more lines for its main section."""

    name = "Exim"

    def __init__(
        self, folder: Path, upstream: int, certificates: dict[str, str] | None = None, settings: str = ""
    ) -> None:
        """Write the configuration; nothing runs yet. What is not for example.com goes on to the port `upstream`."""
        super().__init__(folder, ("usr/sbin/exim4",), ("/usr/sbin/exim4", "-bdf", "-q1s"), free_port())
        self.own("spool", "Debian-exim")
        self.own("log", "Debian-exim")
        for name in ("cert", "key"):
            if certificates:
                self.write(f"etc/{name}.pem", Path(certificates[name]).read_text())
                (self.folder / f"etc/{name}.pem").chmod(0o644)
        text = CONFIG.format(
            port=self.port,
            upstream=upstream,
            tls=TLS if certificates else "tls_advertise_hosts =",
            settings=settings,
            user=USER,
            password=PASSWORD,
        )
        self.write("etc/exim4/exim4.conf", text)

    def log(self) -> str:
        """Give what it wrote of its work."""
        parts = [path.read_text(errors="replace") for path in sorted((self.folder / "log").glob("*log"))]
        return super().log() + "".join(parts)
