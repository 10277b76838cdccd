"""What a level of `may` remembers of hosts whose handshake failed, and for how long."""

import logging

import pytest
import trustme
from dns_server import Clock
from smtp_peer import smtp_peer
from tls_names import BROKEN, END, OFFERED, PLAIN, SECURED, server_side
from tls_way import Way, opened

from smarthost.delivery.pauses import Pauses
from smarthost.mail.route import TlsLevel

MINUTE, DAY = 60.0, 86_400.0
SILENT = OFFERED + "<- 220 go\n== hang\n"
RESET = OFFERED + "<- 220 go\n== reset\n"
CLOSED = OFFERED + "<- 220 go\n== close\n"


@pytest.mark.parametrize("stalled", [SILENT, RESET, CLOSED])
async def test_a_handshake_without_an_end_is_remembered_briefly(
    way: Way, clock: Clock, authority: trustme.CA, caplog: pytest.LogCaptureFixture, stalled: str
) -> None:
    """Mail goes in plain text in the same attempt; ten minutes later TLS is tried again, and is there."""
    context, _ = server_side(authority, "mx.example")
    dialogs = (stalled, PLAIN + END, PLAIN + END, SECURED + END)
    async with smtp_peer(*dialogs, context=context, complete=False) as peer:
        site = way.site(peer, TlsLevel.MAY)
        with caplog.at_level(logging.WARNING):
            assert (await opened(way, site)).tls == ""
        assert "not tried again for 10 min" in caplog.text
        clock.now += 9 * MINUTE
        assert (await opened(way, site)).tls == ""
        clock.now += 2 * MINUTE
        assert (await opened(way, site)).tls


async def test_the_third_handshake_in_a_row_without_an_end_counts_as_broken(
    way: Way, clock: Clock, authority: trustme.CA
) -> None:
    """A good handshake in between begins the count anew; three stalls in a row spare the host for three days."""
    context, _ = server_side(authority, "mx.example")
    stalls, well = (RESET, PLAIN + END), (SECURED + END,)
    dialogs = (*stalls, *stalls, *well, *stalls, *stalls, *stalls)
    async with smtp_peer(*dialogs, context=context, complete=False) as peer:
        site = way.site(peer, TlsLevel.MAY)
        for secured in (False, False, True, False, False, False):
            assert bool((await opened(way, site)).tls) is secured
            assert (await way.policy(site)).level is (TlsLevel.MAY if secured else TlsLevel.NONE)
            clock.now += 11 * MINUTE
        assert len(peer.reads) == len(dialogs)
        policy = await way.policy(site)
        assert policy.level is TlsLevel.NONE and "for 3 days" in policy.sentence


async def test_stalls_that_are_days_apart_never_count_as_broken(way: Way, clock: Clock) -> None:
    """What happened more than a day ago is not in a row with what happens now."""
    dialogs = (RESET, PLAIN + END) * 4
    async with smtp_peer(*dialogs, complete=False) as peer:
        site = way.site(peer, TlsLevel.MAY)
        for _ in range(4):
            await opened(way, site)
            clock.now += 1.1 * DAY
            assert (await way.policy(site)).level is TlsLevel.MAY


async def test_what_the_peers_tls_says_is_believed_at_once(way: Way, clock: Clock) -> None:
    """A handshake that failed by what the peer said is not tried again for three days."""
    async with smtp_peer(BROKEN, PLAIN + END, complete=False) as peer:
        site = way.site(peer, TlsLevel.MAY)
        await opened(way, site)
        clock.now += 2.9 * DAY
        assert (await way.policy(site)).level is TlsLevel.NONE


def test_pauses_are_bounded() -> None:
    """Whoever can make up names cannot fill the memory: the oldest go first, though their time is not over."""
    pauses: Pauses[str] = Pauses()
    for number in range(25_000):
        pauses.pause(f"host {number}", 1000.0, "cause", 0.0)
    assert len(pauses._paused) <= 10_000
    assert pauses.is_paused("host 24999", 0.0) and not pauses.is_paused("host 0", 0.0)
