"""X-Smarthost-Route through a whole relay: the route that a user may choose, and what becomes of it."""

import smtplib

import msgspec
import pytest
from asking import submit
from relay_house import SLOW, House

from smarthost.crypto.dkim_keys import Keyring
from smarthost.crypto.password import hash_password
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, Route
from smarthost.policy.admission import Auth, Listener, Tls, User
from smarthost.policy.routing import Match, RouteRule

pytestmark = pytest.mark.asyncio


async def test_a_message_takes_the_route_that_it_names(house: House) -> None:
    """The named route goes before the rules, holds after a restart, and the rules choose when it has gone."""
    kept = RouteRule(Match(tag=("never",)), Route("kept", Deliver.HOLD))
    house.config = msgspec.structs.replace(
        house.config,
        listeners=(Listener(address="127.0.0.1:0", tls=Tls.NONE, auth=Auth.REQUIRED, allow_plaintext_auth=True),),
        users=(User("app1", hash_password("secret"), allowed_routes=("kept", "relayhost")),),
    )
    await house.open(route_rules=(kept,), retry=SLOW)
    first = await submit(house, "app1", "relayhost")
    await house.until(lambda: Kind.RELAYED in house.kinds(first))
    second = await submit(house, "app1", "kept")
    with pytest.raises(smtplib.SMTPDataError, match="has no route of that name"):
        await submit(house, "app1", "other")
    (entry,) = await house.server.spool.entries_of(second)
    assert (entry.queue, entry.message.route, entry.why) == ("kept", "kept", "held")
    await house.server.stop()
    await house.open(route_rules=(RouteRule(Match(tag=("never",)), Route("kept", Deliver.HOLD)),))
    assert len(await house.server.spool.entries_of(second)) == 1
    house.server.relay.apply(msgspec.structs.replace(house.config, route_rules=()), Keyring())
    (entry,) = await house.server.spool.entries_of(second)
    assert house.server.relay.rules.route_for(entry.message, entry.recipients[0]).name == "relayhost"
