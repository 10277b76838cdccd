"""Pools in the configuration: what an upstream inherits, which ones share, how they are named, and what is refused."""

import textwrap
from pathlib import Path

import pytest

from smarthost.config import Config, ConfigError, load
from smarthost.mail.route import NextHop, Source, TlsLevel

SECRET = "password = 'x'"


def load_text(folder: Path, text: str, **environ: str) -> Config:
    """Load a configuration that is written here."""
    file = folder / "smarthost.toml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    file.chmod(0o600)
    return load(file, environ, fqdn=lambda: "relay.example.org")


def mistakes(folder: Path, text: str) -> list[str]:
    """Give what is said of a configuration that is wrong, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text)
    return caught.value.render().replace(f"{folder}/", "").splitlines()


def test_a_pool_is_read(tmp_path: Path) -> None:
    """Neighbours with weights share, all else is in order; what an upstream leaves out is the route's."""
    config = load_text(
        tmp_path,
        """
        [[route]]
        name = "out"
        tls = "encrypt"
        auth = { username = "all", password = "x" }
        relayhost = [
            { host = "[a.example]:587", weight = 3, quota = ["10000/d", "20/s,max_burst=5"] },
            { host = "b.example", weight = 1, tls = "verify", auth = { username = "b", password = "y" } },
            "[c.example]",
            { host = "smtps://[d.example]", weight = 2, quota = "5/h" },
        ]
        """,
    )
    route = config.route_rules[0].route
    assert route.next_hops[1] == NextHop("b.example", 25, by_mx=True)  # no brackets: by MX
    rows = [(each.name, each.order, each.weight, each.quota, each.route.tls, each.route.login) for each in route.pool]
    assert rows == [
        ("[a.example]:587", 0, 3, ("10000/d", "20/s,max_burst=5"), TlsLevel.ENCRYPT, "out"),
        ("b.example:25", 0, 1, (), TlsLevel.VERIFY, "out/2"),
        ("[c.example]:25", 1, 1, (), TlsLevel.ENCRYPT, "out"),
        ("[d.example]:465", 2, 2, ("5/h",), TlsLevel.ENCRYPT, "out"),
    ]
    assert all(each.route.name == "out" and len(each.route.next_hops) == 1 for each in route.pool)
    assert {name: login.username for name, login in config.credentials.items()} == {"out": "all", "out/2": "b"}


def test_two_accounts_at_one_host_are_two_upstreams(tmp_path: Path) -> None:
    """Upstreams that have the same next hop are told apart by their user names."""
    config = load_text(
        tmp_path,
        """
        [[relayhost]]
        host = "[smtp.example]:587"
        auth = { username = "one", password = "x" }
        [[relayhost]]
        host = "[smtp.example]:587"
        auth = { username = "two", password = "x" }
        """,
    )
    assert [each.name for each in config.fallback.pool] == ["one@[smtp.example]:587", "two@[smtp.example]:587"]
    assert [each.route.login for each in config.fallback.pool] == ["relayhost/1", "relayhost/2"]
    assert {each.route.tls for each in config.fallback.pool} == {TlsLevel.VERIFY}


def test_an_order_says_who_shares_and_who_comes_later(tmp_path: Path) -> None:
    """Those with the same order share by weight, wherever they stand; a lower one comes first."""
    config = load_text(
        tmp_path,
        """
        relayhost = [
            { host = "[backup2.example]", order = 2, weight = 3 },
            { host = "[a.example]", order = 1 },
            { host = "[backup1.example]", order = 2, auth = { username = "u", password = "x" } },
            { host = "[b.example]", order = 1, weight = 2 },
        ]
        """,
    )
    assert [(each.name, each.order, each.weight, each.route.login) for each in config.fallback.pool] == [
        ("[a.example]:25", 1, 1, ""),
        ("[b.example]:25", 1, 2, ""),
        ("[backup2.example]:25", 2, 3, ""),
        ("[backup1.example]:25", 2, 1, "relayhost/3"),
    ]


def test_two_primaries_and_a_backup_by_weights(tmp_path: Path) -> None:
    """Without an order neighbours with weights share, and what has none comes behind them."""
    text = "relayhost = [{ host = 'a.example', weight = 1 }, { host = 'b.example', weight = 1 }, 'c.example']"
    assert [each.order for each in load_text(tmp_path, text).fallback.pool] == [0, 0, 1]


def test_a_list_of_names_is_no_pool(tmp_path: Path) -> None:
    """Names alone stay one site with ordered fail-over."""
    fallback = load_text(tmp_path, "relayhost = ['[a.example]', '[b.example]']").fallback
    assert fallback.pool == () and len(fallback.next_hops) == 2


def test_a_pool_comes_from_the_environment(tmp_path: Path) -> None:
    """A variable's value is TOML."""
    config = load_text(
        tmp_path, "", SMARTHOST__RELAYHOST="[{ host = '[127.0.0.1]:2525', quota = ['5/h'] }, '[b.example]']"
    )
    assert [(each.name, each.quota) for each in config.fallback.pool] == [
        ("[127.0.0.1]:2525", ("5/h",)),
        ("[b.example]:25", ()),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("relayhost = [{ hots = 'a.example' }]", "relayhost[0].host: is missing; write host ="),
        ("relayhost = [{ host = 'a b' }]", "relayhost[0].host: 'a b' is no next hop"),
        ("relayhost = ['a b', { host = 'a.example' }]", "relayhost[0]: 'a b' is no next hop"),
        (
            "relayhost = [{ host = 'a.example', wieght = 2 }]",
            "relayhost[0].wieght: is not known; did you mean 'weight'?",
        ),
        ("relayhost = [{ host = 'a.example', weight = 0 }]", "relayhost[0].weight: is 0, but must be a whole number"),
        ("relayhost = [{ host = 'a.example', order = 0 }]", "relayhost[0].order: is 0, but must be a whole number"),
        (
            "relayhost = [{ host = 'a.example', order = 1 }, 'b.example']",
            "relayhost[1]: has no order, but another upstream has; write a table with host and order for each",
        ),
        ("relayhost = [{ host = 'a.example', quota = ['many'] }]", "relayhost[0].quota[0]: 'many' is no rate"),
        ("relayhost = ['a.example', { host = 'a.example' }]", "relayhost[1]: is a.example:25, which is given twice"),
        (
            f"relayhost = [{{ host = 'a.example', tls = 'none', auth = {{ username = 'u', {SECRET} }} }}]",
            "relayhost[0].auth: would send the password without TLS",
        ),
        ("relayhost = [{ host = 'a.example', auth = { username = 'u' } }]", "relayhost[0].auth.password: is missing"),
    ],
)
def test_mistakes_in_a_pool_are_told(tmp_path: Path, text: str, said: str) -> None:
    """Each mistake names its line, its upstream and what is allowed."""
    lines = mistakes(tmp_path, text)
    assert any(line.startswith(f"smarthost.toml:1: {said}") for line in lines), lines


def test_source_addresses_are_read(tmp_path: Path) -> None:
    """Addresses are texts, or tables with a weight and a name in EHLO."""
    config = load_text(
        tmp_path,
        """
        [[route]]
        deliver = "mx"
        source_address = ["192.0.2.1", { address = "2001:db8::1", weight = 3, hello = "six.example.org" }]
        """,
    )
    assert config.route_rules[0].route.source_address == (
        Source("192.0.2.1"),
        Source("2001:db8::1", 3, "six.example.org"),
    )


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("['192.0.2.300']", 'source_address[0]: is "192.0.2.300", but must be an IP address'),
        ("[{ weight = 2 }]", "source_address[0].address: is missing; write address ="),
        (
            "[{ address = '192.0.2.1', helo = 'a.example' }]",
            "source_address[0].helo: is not known; did you mean 'hello'?",
        ),
        ("[{ address = '192.0.2.1', hello = 'a b' }]", 'source_address[0].hello: is "a b", but must be a host name'),
        ("['192.0.2.1', '192.0.2.1']", 'source_address[1]: is "192.0.2.1", which is given twice'),
    ],
)
def test_mistakes_in_source_addresses_are_told(tmp_path: Path, sources: str, said: str) -> None:
    """Each mistake names its line, its address and what is allowed."""
    lines = mistakes(tmp_path, f"[[route]]\ndeliver = 'mx'\nsource_address = {sources}")
    assert any(line.startswith(f"smarthost.toml:3: route[0].{said}") for line in lines), lines
