"""Messages that ask for something: over TLS, for REQUIRETLS; after a login, for a route; and what becomes of them."""

import asyncio
import smtplib
import ssl

from relay_house import House

from smarthost.mail.event import Event, Kind
from smarthost.mail.message import parse_id
from smarthost.policy.admission import Auth, Listener, Tls

DOOR = Listener(address="127.0.0.1:0", tls=Tls.STARTTLS, auth=Auth.NONE)


async def send(house: House, recipient: str, content: str, *options: str) -> int:
    """Send one message over TLS; gives its id."""

    def talk() -> int:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP(*house.address, timeout=20) as client:
            client.starttls(context=trusting)
            client.ehlo()
            assert client.mail("app@example.org", list(options))[0] == 250
            assert client.rcpt(recipient)[0] == 250
            code, text = client.data(content.encode())
            assert code == 250, text
            number = parse_id(text.decode().rsplit(" ", 1)[1])
            assert number is not None
            return number

    return await asyncio.to_thread(talk)


async def submit(house: House, user: str, route: str) -> int:
    """Send one message that asks for a route, logged in; gives its id, raises SMTPDataError where it is refused."""

    def talk() -> int:
        with smtplib.SMTP(*house.address, timeout=20) as client:
            client.login(user, "secret")
            client.mail("app@example.org")
            client.rcpt("250@example.net")
            code, text = client.data(f"Subject: x\r\nX-Smarthost-Route: {route}\r\n\r\nhello\r\n")
            if code != 250:
                raise smtplib.SMTPDataError(code, text)
            return parse_id(text.decode().rpartition(" ")[2]) or 0

    return await asyncio.to_thread(talk)


async def told(house: House, number: int, kind: Kind) -> Event:
    """Wait for an event of a message."""
    try:
        await house.until(lambda: kind in house.kinds(number))
    except TimeoutError:
        raise AssertionError(f"no {kind} of {number}: {house.events}") from None
    return next(event for event in house.events if event.message == number and event.event is kind)
