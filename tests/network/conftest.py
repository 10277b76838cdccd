"""Fixtures that several tests of the network need."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from dns_server import Clock, DnsServer
from policy_server import PolicyServer

from smarthost.network.dns import Resolver
from smarthost.network.sts import StsPolicies


@pytest.fixture
def authority() -> trustme.CA:
    """Give the authority that is trusted."""
    return trustme.CA()


@pytest.fixture
def clock() -> Clock:
    """Give a clock that a test moves."""
    return Clock()


@pytest.fixture
def make_policies(
    tmp_path: Path, authority: trustme.CA, zone: DnsServer, web: PolicyServer, clock: Clock
) -> Callable[..., StsPolicies]:
    """Give what makes the policies of domains in a zone, fetched from a server; made again they are as at a restart."""
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def make(timeout: float = 1.0) -> StsPolicies:
        resolver = Resolver([zone.address], clock, lambda *_: None, lifetime=3.0)
        return StsPolicies(resolver, tmp_path / "mta-sts", lambda: context, clock, port=web.port, timeout=timeout)

    return make
