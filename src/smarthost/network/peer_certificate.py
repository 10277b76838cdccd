"""Reads from a TLS connection the certificates that the peer showed, whether or not anybody has verified them."""

import asyncio
from typing import Any

_DER = 2  # _ssl.ENCODING_DER, which has no public name


def shown_chain(transport: asyncio.BaseTransport) -> tuple[bytes, ...]:
    """Give the chain in DER, the peer's own certificate first; () without TLS."""
    tls: Any = transport.get_extra_info("ssl_object")
    if tls is None:
        return ()
    # Public from Python 3.13 on; before, only the object behind it has the chain.
    ask = getattr(tls, "get_unverified_chain", None)
    chain = ask() if ask is not None else tls._sslobj.get_unverified_chain()
    return tuple(each if isinstance(each, bytes) else each.public_bytes(_DER) for each in chain or ())


def shown_certificate(transport: asyncio.BaseTransport) -> bytes:
    """Give the peer's own certificate in DER; b"" without TLS."""
    tls: Any = transport.get_extra_info("ssl_object")
    return (tls.getpeercert(binary_form=True) or b"") if tls is not None else b""
