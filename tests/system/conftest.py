"""Fixtures of the system tests: a sink, and relays in front of it, as processes of their own."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import argon2
import pytest
import trustme
from relay_process import PASSWORD, USER, Relay, free_port
from sink_process import Sink

_ALONE = ("test_real_servers.py",)  # two Exims on one machine share the name of a socket


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder as a system test."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)
            if item.path.name in _ALONE:
                item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    """A sink that is starting; a relay that is started waits for it."""
    folder = tmp_path / "sink"
    folder.mkdir()
    upstream = Sink(folder)
    try:
        upstream.start()
        yield upstream
    finally:
        upstream.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate for localhost and the authority behind it, as files."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(folder / "cert.pem", append=number > 0)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}


@pytest.fixture(scope="session")
def password_hash() -> str:
    """An argon2id hash of the user's password that is cheap to verify."""
    return argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections: bound, so that nobody else takes it, and not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", free_port()))
        yield int(held.getsockname()[1])


@pytest.fixture
def make_relay(
    tmp_path: Path, sink: Sink, certificates: dict[str, str], password_hash: str
) -> Iterator[Callable[..., Relay]]:
    """Makes relays in front of the sink that are ended with the test; keyword arguments go into the configuration."""
    made: list[Relay] = []

    def make(**more: Any) -> Relay:
        folder = tmp_path / f"relay{len(made)}"
        folder.mkdir()
        port, http_port = free_port(), free_port()
        config: dict[str, Any] = {
            "hostname": "relay.test",
            "data_directory": str(folder / "data"),
            "relayhost": f"[127.0.0.1]:{sink.port}",
            "shutdown_timeout": "3s",
            "listener": [{"address": f"127.0.0.1:{port}", "tls": "starttls", "auth": "optional"}],
            "tls": {"certificate": certificates["cert"], "key": certificates["key"]},
            "user": [{"name": USER, "password": password_hash}],
            "submission": {"min_free_space": "1MiB"},
            "retry": {"schedule": ["1s"]},
            "http": {"address": f"127.0.0.1:{http_port}"},
        }
        relay = Relay(folder, config | more, (port, http_port), sink.wait_until_up)
        made.append(relay)
        return relay

    try:
        yield make
    finally:
        for relay in made:
            relay.close()


@pytest.fixture
def relay(make_relay: Callable[..., Relay]) -> Relay:
    """A relay that runs, with STARTTLS and AUTH, and trusts this machine."""
    started = make_relay()
    started.start()
    return started


@pytest.fixture
def strict_relay(make_relay: Callable[..., Relay]) -> Relay:
    """A relay that runs and takes mail after STARTTLS and AUTH only."""
    made = make_relay()
    made.config["listener"][0]["auth"] = "required"
    made.config["submission"]["trusted_networks"] = []
    made.start()
    return made
