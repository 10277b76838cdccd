"""Admission: who may relay, and as whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.policy.admission import (
    Auth,
    Listener,
    Networks,
    User,
    check_sender,
    may_relay,
)
from smarthost.policy.glob import compile_globs


@pytest.mark.parametrize(
    ("trusted", "identity", "auth", "refusal"),
    [
        (False, "app1", Auth.REQUIRED, None),
        (False, "app1", Auth.OPTIONAL, None),
        (True, "", Auth.REQUIRED, "530 5.7.0"),
        (False, "", Auth.REQUIRED, "530 5.7.0"),
        (True, "", Auth.OPTIONAL, None),
        (False, "", Auth.OPTIONAL, "530 5.7.0"),
        (True, "", Auth.NONE, None),
        (False, "", Auth.NONE, "554 5.7.1"),
    ],
)
def test_only_users_and_trusted_networks_relay(trusted: bool, identity: str, auth: Auth, refusal: str | None) -> None:
    """A stranger is refused at every listener, and required means everybody."""
    reply = may_relay(trusted, identity, auth)
    assert (reply and f"{reply.code} {reply.status}") == refusal


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.1.2.3", False),
        ("10.1.2.3", False),
        ("2001:db8::5", True),
        ("2001:db8::5%eth0", True),
        ("2001:db9::5", False),
        ("", False),
        ("not an address", False),
        ("127.0.0.1.example", False),
    ],
)
def test_networks_know_their_addresses(address: str, inside: bool) -> None:
    """An address is found in its network, mapped ones as IPv4, and what is no address nowhere."""
    networks = Networks(("127.0.0.0/8", "::1/128", "2001:db8::/32"))
    assert (address in networks) is inside
    assert (address in networks) is inside  # the second answer is the remembered one


def test_networks_stay_bounded() -> None:
    """A scan of a whole network does not make the memory of answers grow without end."""
    networks = Networks(("10.0.0.0/8",))
    for number in range(10_000):
        assert f"10.0.{number // 250}.{number % 250}" in networks
    assert len(networks._known) <= 4096


def test_networks_refuse_host_bits() -> None:
    """A network with host bits set is a mistake, not a guess."""
    with pytest.raises(ValueError, match="host bits"):
        Networks(("10.0.0.1/8",))


@pytest.mark.parametrize(
    ("globs", "address", "allowed"),
    [
        ((), "anyone@anywhere.example", True),
        (("*@example.org",), "App@Example.ORG", True),
        (("*@example.org",), "app@sub.example.org", False),
        (("*@example.org",), "app@example.org.evil.example", False),
        (("*@*.example.org", "me@example.org"), "app@sub.example.org", True),
        (("*@*.example.org", "me@example.org"), "ME@example.org", True),
        (("app?@example.org",), "app1@example.org", True),
        (("app?@example.org",), "app12@example.org", False),
        (("app[12]@example.org",), "app1@example.org", False),
        (("*@[192.0.2.1]",), "app@[192.0.2.1]", True),
        (("*@example.org",), "", True),
        (("*@example.org",), "a\n@example.org", True),
    ],
)
def test_a_user_sends_as_allowed_senders(globs: tuple[str, ...], address: str, allowed: bool) -> None:
    """allowed_senders are globs without regard to case, and the null reverse-path passes."""
    reply = check_sender(User("app1", "$argon2id$", allowed_senders=globs), address)
    assert (reply is None) is allowed
    assert reply is None or str(reply).startswith("553 5.7.1 ")


@given(st.text(max_size=30))
def test_a_glob_without_wildcards_matches_itself(text: str) -> None:
    """No character but * and ? means anything else than itself."""
    literal = text.replace("*", "").replace("?", "")
    assert compile_globs((literal,)).fullmatch(literal)
    assert compile_globs((f"*{literal}*",)).fullmatch(f"x{literal}y")


def test_no_glob_matches_nothing() -> None:
    """An empty list of globs is no wildcard."""
    assert compile_globs(()).fullmatch("") is None


def test_a_hash_is_in_no_log() -> None:
    """The representation of a user does not show the password's hash."""
    assert "argon" not in repr(User("app1", "$argon2id$v=19$secret"))


def test_the_default_listener_is_on_loopback() -> None:
    """Without configuration nobody else can reach the relay."""
    assert Listener().address == "127.0.0.1:2587"
