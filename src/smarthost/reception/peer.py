"""Who is at the other end of a connection: an address, and the block of addresses that counts as one peer."""

from ipaddress import IPv6Address, ip_address


def client_of(peer: object) -> str:
    """Give the IP address of a socket's peer name, "" for a local socket; IPv4 that came as IPv6 is written as IPv4."""
    if not isinstance(peer, tuple):
        return ""
    address = str(peer[0])
    return address[7:] if address.startswith("::ffff:") and "." in address else address.partition("%")[0]


def block_of(address: str) -> str:
    """Give what counts as one peer: an IPv4 address, or the /64 of an IPv6 address, which one machine can own whole."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))


def is_loopback(client: str) -> bool:
    """Say whether a peer is on this machine; a local socket's ("") is."""
    return not client or ip_address(client).is_loopback
