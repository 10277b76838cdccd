"""Which addresses are the Internet's, so that nobody has the relay speak to what only the relay can reach."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# Addresses of IPv6 that stand for one of IPv4, with the bits behind which it lies.
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052
_NAT64_LOCAL = ip_network("64:ff9b:1::/48")  # RFC 8215
_COMPATIBLE = ip_network("::/96")  # RFC 4291 2.5.5.1, out of use


def is_public(address: str) -> bool:
    """Say whether an IP address is globally reachable; false for what is no address, as for a scoped one.

    An address of IPv6 that carries one of IPv4 (mapped, 6to4, Teredo, NAT64) is judged by both.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return _is_global(found)
    if found.ipv4_mapped is not None:
        return _is_global(found.ipv4_mapped)
    if found in _NAT64_LOCAL or found in _COMPATIBLE or found.scope_id is not None:
        return False
    carried = [found.sixtofour, *(found.teredo or ())]
    if found in _NAT64:
        return _is_global(IPv4Address(int(found) & 0xFFFFFFFF))
    return _is_global(found) and all(_is_global(each) for each in carried if each is not None)


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved
