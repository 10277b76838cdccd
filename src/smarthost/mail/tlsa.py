"""Tlsa: one record that says which certificate or key a service shows (RFC 6698)."""

import msgspec


class Tlsa(msgspec.Struct, frozen=True):
    """A TLSA record's numbers and its association data, as DNS gave them (RFC 6698 2.1); nothing is checked."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        """Write it as in a zone, the data shortened."""
        data = self.data.hex()
        return f"{self.usage} {self.selector} {self.matching} {data if len(data) <= 16 else data[:16] + '...'}"
