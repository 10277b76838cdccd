"""Writes the configuration that smarthost is measured with; every key that differs from the default stands here."""

from pathlib import Path

_CONFIG = """\
hostname = "relay.test"
data_directory = "{folder}/data"
relayhost = "[127.0.0.1]:{upstream}"
relayhost_tls = "none"

[[listener]]
address = "127.0.0.1:{listen}"
tls = "none"
auth = "none"

[submission]
max_connections = 10000
max_connections_per_ip = 10000
min_free_space = "16MiB"

[http]
address = ""

[[limit]]
match = {{ }}
max_connections = {connections}
"""
_SIGNING = """
[[dkim]]
domain = "sender.test"
selector = "bench"
key = "{key}"
"""
_DEAD_ROUTE = """
[[route]]
name = "dead"
match = {{ recipient = ["*@dead.test"] }}
relayhost = ["[127.0.0.1]:{port}"]
tls = "none"
"""


def write_config(folder: Path, listen: int, upstream: int, *, connections: int = 20, key: Path | None = None) -> Path:
    """Write smarthost.toml into a folder that exists; with `key` the mail of smtp-source is signed."""
    text = _CONFIG.format(folder=folder, listen=listen, upstream=upstream, connections=connections)
    if key is not None:
        text += _SIGNING.format(key=key)
    path = folder / "smarthost.toml"
    path.write_text(text)
    return path


def add_dead_route(path: Path, port: int) -> None:
    """Add a route named "dead" to a port where nobody listens."""
    with path.open("a") as file:
        file.write(_DEAD_ROUTE.format(port=port))
