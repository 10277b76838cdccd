"""Reads the local addresses from which a route's sessions go out."""

from typing import Any

from smarthost.config_read import Table, from_environment, read_count
from smarthost.config_words import read_host_name, read_ip
from smarthost.mail.route import Source


def read_sources(table: Table, key: str) -> tuple[Source, ...]:
    """Read addresses, as text or as tables with a weight and a name in EHLO; several share a route's sessions."""
    table.know(key)
    if key not in table.values:
        return ()
    values = from_environment(table.values[key])
    listed = values if isinstance(values, list) else [values] if values else []
    sources: list[Source] = []
    for index, value in enumerate(listed):
        place = (key, index) if isinstance(values, list) else (key,)
        source = _read_source(table, place, value)
        if source is None:
            continue
        if any(source.address == other.address for other in sources):
            table.findings.refuse((*table.path, *place), f'is "{source.address}", which is given twice')
        sources.append(source)
    return tuple(sources)


def _read_source(table: Table, place: tuple[str | int, ...], value: Any) -> Source | None:
    if not isinstance(value, dict):
        try:
            return Source(read_ip(value))
        except ValueError as error:
            table.findings.refuse((*table.path, *place), str(error))
            return None
    inner = Table(value, (*table.path, *place), table.findings)
    address = inner.take("address", read_ip, "")
    if not inner.has("address"):
        inner.refuse("address", 'is missing; write address = "192.0.2.1"')
    source = Source(address, inner.take("weight", read_count, 1), inner.take("hello", read_host_name, ""))
    inner.finish()
    return source if address else None
