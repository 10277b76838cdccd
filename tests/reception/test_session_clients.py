"""A client that others wrote: the standard library's smtplib, against the door's whole offer."""

import asyncio
import smtplib
from email.message import EmailMessage

import pytest
from doorstep import PASSWORD, doorstep, on_both_loops

from smarthost.policy.admission import Auth, Tls


def message():
    """Make a message with dots, a long body and an attachment."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "ada@example.org", "bob@example.net", "Zażółć"
    made.set_content(".\n..two\n" + "text ä\n" * 200)
    made.add_attachment(bytes(range(256)) * 200, maintype="application", subtype="octet-stream")
    made.set_boundary("a-line-between")
    return made


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
@on_both_loops
async def test_smtplib_logs_in_and_sends(tmp_path, tls):
    """STARTTLS or TLS on connect, AUTH by both mechanisms, a message with several recipients."""
    sent = message()
    async with doorstep(tmp_path, tls=tls, auth=Auth.REQUIRED, trusted=()) as step:

        def send(mechanism):
            if tls is Tls.IMPLICIT:
                client = smtplib.SMTP_SSL("localhost", step.port, timeout=10, context=step.trust)
            else:
                client = smtplib.SMTP("localhost", step.port, timeout=10)
            with client:
                if tls is Tls.STARTTLS:
                    with pytest.raises(smtplib.SMTPNotSupportedError):
                        client.login("ada", PASSWORD)
                    client.starttls(context=step.trust)
                client.ehlo()
                assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
                client.user, client.password = "ada", PASSWORD
                client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
                refused = client.send_message(
                    sent,
                    to_addrs=["bob@example.net", "carol@example.net"],
                    rcpt_options=["NOTIFY=FAILURE"],
                )
                assert refused == {}
                assert client.noop()[0] == 250

        loop = asyncio.get_running_loop()
        for mechanism in ("PLAIN", "LOGIN"):
            await loop.run_in_executor(None, send, mechanism)
        assert len(step.intake.accepted) == 2
        expected = sent.as_bytes(policy=sent.policy.clone(linesep="\r\n"))
        for draft in step.intake.accepted:
            assert draft.content == expected
            assert draft.arrival.protocol == "ESMTPSA"
            assert [recipient.notify for recipient in draft.envelope.recipients] == [4, 4]


@on_both_loops
async def test_smtplib_is_told_what_is_wrong(tmp_path):
    """A wrong password and a refused sender arrive as smtplib's own exceptions, with our reply."""
    async with doorstep(tmp_path, auth=Auth.REQUIRED) as step:

        def fail():
            with smtplib.SMTP("localhost", step.port, timeout=10) as client:
                with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                    client.send_message(message())
                assert refused.value.smtp_code == 530
                with pytest.raises(smtplib.SMTPAuthenticationError) as denied:
                    client.login("ada", "wrong")
                assert denied.value.smtp_code == 535

        await asyncio.get_running_loop().run_in_executor(None, fail)
