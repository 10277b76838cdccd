"""Postfix on either side: it relays through us with STARTTLS and SASL, and it is what we relay to."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outside import need, need_command, need_root
from postfix_process import Postfix
from relay_process import PASSWORD, USER, Relay, free_port, wait_until
from sending import submit
from sink_process import Sink


@pytest.fixture
def make_postfix() -> Iterator[Callable[..., Postfix]]:
    """Makes Postfix instances that are ended with the test, below a folder that its user may enter."""
    need_command("postfix")
    need_root()
    folder = Path(tempfile.mkdtemp(prefix="smarthost-postfix-"))
    folder.chmod(0o755)
    made: list[Postfix] = []

    def make(upstream: int, settings: str = "") -> Postfix:
        home = folder / str(len(made))
        home.mkdir(mode=0o755)
        made.append(Postfix(home, upstream, settings))
        return made[-1]

    try:
        yield make
    finally:
        for postfix in made:
            postfix.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_postfix_relays_through_us(
    make_postfix: Callable[..., Postfix], strict_relay: Relay, sink: Sink, certificates: dict[str, str]
) -> None:
    """Postfix with relayhost=[127.0.0.1]:port, TLS and SASL delivers through us, several messages a session."""
    need(any(Path("/usr/lib").glob("*/sasl2/libplain.so*")), "SASL's PLAIN (libsasl2-modules)")
    postfix = make_postfix(
        strict_relay.port,
        "smtp_sasl_auth_enable = yes\n"
        f"smtp_sasl_password_maps = inline:{{ {{ [127.0.0.1]:{strict_relay.port} = {USER}:{PASSWORD} }} }}\n"
        "smtp_sasl_security_options = noanonymous\n"
        f"smtp_tls_security_level = encrypt\nsmtp_tls_CAfile = {certificates['ca']}\n",
    )
    postfix.start()
    for number in range(5):
        submit_to_postfix(postfix, f"through Postfix {number}", f"250+{number}@example.com")
    for number in range(5):
        message = sink.wait_for(f"through Postfix {number}", 20)
        ours, its = message.get_all("Received", [])[:2]
        assert "by relay.test" in ours and "ESMTPSA" in ours
        assert "by postfix.test" in its


def submit_to_postfix(postfix: Postfix, subject: str, recipient: str) -> None:
    """Hand one message to Postfix, whose replies name ids of its own form."""
    try:
        submit(postfix.port, subject, recipient)
    except AssertionError as refusal:
        assert "the reply names no id" in str(refusal)


def test_we_relay_to_postfix(
    make_postfix: Callable[..., Postfix], make_relay: Callable[..., Relay], sink: Sink, certificates: dict[str, str]
) -> None:
    """We relay to Postfix by STARTTLS with its certificate verified; what it sends on is what was given to us."""
    postfix = make_postfix(
        sink.port,
        f"smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {certificates['cert']}\n"
        f"smtpd_tls_key_file = {certificates['key']}\n",
    )
    postfix.start()
    relay = make_relay(relayhost=f"[127.0.0.1]:{postfix.port}", relayhost_tls="verify", relayhost_ca=certificates["ca"])
    relay.start()
    for number in range(5):
        submit(relay.port, f"to Postfix {number}", f"250+{number}@example.com")
    for number in range(5):
        message = sink.wait_for(f"to Postfix {number}", 20)
        assert message["Received"].count("by postfix.test") == 1
    wait_until(lambda: not relay.queue(), "the queue is empty")
    assert {event["tls"][:4] for event in relay.events("relayed")} == {"TLSv"}


def test_what_postfix_refuses_is_reported(
    make_postfix: Callable[..., Postfix], make_relay: Callable[..., Relay]
) -> None:
    """A recipient that Postfix refuses by 550 fails with Postfix's own words."""
    refusal = "inline:{ { nobody@example.com = 550 5.1.1 unknown } }"
    postfix = make_postfix(free_port(), f"smtpd_recipient_restrictions = check_recipient_access {refusal}\n")
    postfix.start()
    relay = make_relay(relayhost=f"[127.0.0.1]:{postfix.port}")
    relay.start()
    submit(relay.port, "refused by Postfix", "nobody@example.com", sender="root@example.org")
    failed = wait_until(lambda: relay.events("failed"), "the recipient failed")
    assert failed[0]["code"] == 550
    assert "nobody@example.com" in failed[0]["reply"]


def test_postfix_bounces_to_us(
    make_postfix: Callable[..., Postfix], make_relay: Callable[..., Relay], sink: Sink, certificates: dict[str, str]
) -> None:
    """Postfix takes our mail and bounces it later: its report is an event of the message, and outlives a kill."""
    bounces = free_port()
    postfix = make_postfix(
        bounces,
        "transport_maps = inline:{ { dead.example = error:5.1.1 nobody by that name } }\n"
        "smtpd_reject_unlisted_recipient = no\n",
    )
    postfix.start()
    relay = make_relay(
        relayhost=f"[127.0.0.1]:{postfix.port}",
        relayhost_tls="none",
        bounces={"domain": "bounces.relay.test", "senders": ["*@example.org"]},
        suppression={"enabled": True},
    )
    relay.config["listener"].append({"address": f"127.0.0.1:{bounces}", "role": "bounces"})
    relay.start()
    name = submit(relay.port, "will bounce", "bob@dead.example")
    said = wait_until(lambda: [each for each in relay.events() if each["event"] == "bounced"], "a bounce", 30)
    assert (said[0]["id"], said[0]["recipient"], said[0]["status"]) == (name, "bob@dead.example", "5.1.1")
    assert "nobody by that name" in said[0]["reply"]
    wait_until(lambda: "status=sent" in postfix.log(), "Postfix was answered")
    relay.kill()
    relay.start()
    assert "bounced" in relay.run("trace", name).stdout
    assert "bob@dead.example" in relay.run("suppress", "list", "--origin", "reported").stdout
    assert "to=<bounces+" in postfix.log() and "250 2.0.0 taken" in postfix.log()
