"""Real clients against a real relay: STARTTLS, AUTH, one message, and its arrival at the sink."""

import os
import smtplib
import ssl
import subprocess
from pathlib import Path

import pytest
from outside import need, need_command, succeeds
from relay_process import PASSWORD, USER, Relay
from sending import compose, transact
from sink_process import Sink

NODE_SCRIPT = """
const nodemailer = require('nodemailer');
const fs = require('fs');
const env = process.env;
const transport = nodemailer.createTransport({
  host: 'localhost', port: Number(env.RELAY_PORT), secure: false, requireTLS: true,
  auth: { user: env.RELAY_USER, pass: env.RELAY_PASSWORD },
  tls: { ca: fs.readFileSync(env.RELAY_CA) },
});
transport.sendMail({
  from: 'root@example.org', to: '250@example.com', subject: 'from nodemailer',
  text: 'Grüße', attachments: [{ filename: 'a.txt', content: 'attached' }],
}).then(sent => { console.log(sent.response); transport.close(); })
  .catch(error => { console.error(error); process.exit(1); });
"""


def run(*command: str, stdin: str = "", **variables: str) -> str:
    """Run a client, and give what it wrote; its failure is the test's."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=30, check=False, env=dict(os.environ) | variables
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_smtplib(strict_relay: Relay, sink: Sink, certificates: dict[str, str]) -> None:
    """Python's smtplib verifies our certificate, logs in and sends; the message says how it came in."""
    context = ssl.create_default_context(cafile=certificates["ca"])
    with smtplib.SMTP("localhost", strict_relay.port, timeout=20) as client:
        client.starttls(context=context)
        client.login(USER, PASSWORD)
        transact(client, compose("from smtplib", ["250@example.com"]), ("250@example.com",), sender="root@example.org")
    assert "with ESMTPSA" in sink.wait_for("from smtplib")["Received"]


def test_smtplib_without_login_is_refused(strict_relay: Relay, certificates: dict[str, str]) -> None:
    """Without AUTH the relay takes nothing from anyone: 530 5.7.0, before and after STARTTLS."""
    with smtplib.SMTP("localhost", strict_relay.port, timeout=20) as client:
        client.ehlo()
        assert client.mail("root@example.org")[0] == 530
        client.starttls(context=ssl.create_default_context(cafile=certificates["ca"]))
        client.ehlo()
        code, text = client.mail("root@example.org")
        if code == 250:
            code, text = client.rcpt("250@example.com")
        assert (code, text[:5]) == (530, b"5.7.0")


def test_smtplib_with_a_wrong_password_is_refused(strict_relay: Relay, certificates: dict[str, str]) -> None:
    """A wrong password is 535 5.7.8."""
    with smtplib.SMTP("localhost", strict_relay.port, timeout=20) as client:
        client.starttls(context=ssl.create_default_context(cafile=certificates["ca"]))
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login(USER, "wrong")
    assert refused.value.smtp_code == 535


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks(strict_relay: Relay, sink: Sink, mechanism: str) -> None:
    """swaks sends over STARTTLS with either mechanism."""
    need_command("swaks")
    need(succeeds("perl", "-MNet::SSLeay", "-e", "1"), "perl module Net::SSLeay (libnet-ssleay-perl), for swaks --tls")
    run(
        *("swaks", "--server", f"127.0.0.1:{strict_relay.port}", "--tls", "--timeout", "15", "--silent", "2"),
        *("--auth", mechanism, "--auth-user", USER, "--auth-password", PASSWORD),
        *("--from", "root@example.org", "--to", "250@example.com", "--h-Subject", f"from swaks {mechanism}"),
    )
    sink.wait_for(f"from swaks {mechanism}")


@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_msmtp(strict_relay: Relay, sink: Sink, certificates: dict[str, str], tmp_path: Path, mechanism: str) -> None:
    """msmtp, as cron and mutt use it, sends over STARTTLS with our certificate verified."""
    need_command("msmtp")
    settings = tmp_path / "msmtprc"
    settings.write_text(
        f"account default\nhost localhost\nport {strict_relay.port}\nfrom root@example.org\ntimeout 15\n"
        f"tls on\ntls_starttls on\ntls_trust_file {certificates['ca']}\n"
        f"auth {mechanism}\nuser {USER}\npassword {PASSWORD}\n"
    )
    settings.chmod(0o600)
    content = compose(f"from msmtp {mechanism}", ["250@example.com"]).decode().replace("\r\n", "\n")
    run("msmtp", "-C", str(settings), "250@example.com", stdin=content)
    sink.wait_for(f"from msmtp {mechanism}")


def test_nodemailer(strict_relay: Relay, sink: Sink, certificates: dict[str, str], tmp_path: Path) -> None:
    """nodemailer sends a MIME message with UTF-8 and an attachment, and is told the queue id."""
    need_command("node")
    need(succeeds("node", "-e", "require('nodemailer')"), "nodemailer (npm install, and NODE_PATH)")
    script = tmp_path / "send.js"
    script.write_text(NODE_SCRIPT)
    answer = run(
        *("node", str(script)),
        RELAY_PORT=str(strict_relay.port),
        RELAY_USER=USER,
        RELAY_PASSWORD=PASSWORD,
        RELAY_CA=certificates["ca"],
    )
    assert "queued as" in answer
    message = sink.wait_for("from nodemailer")
    assert [part.get_filename() for part in message.iter_attachments()] == ["a.txt"]
    body = message.get_body()
    assert body is not None and "Grüße" in body.get_content()
