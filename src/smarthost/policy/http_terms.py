"""What the HTTP door allows."""

import msgspec


class HttpTerms(msgspec.Struct, frozen=True):
    """Settings of the HTTP door; sizes are octets, times seconds.

    `tokens` are SHA-256 digests in hex of the operator's own tokens, which may act for every tenant;
    `max_request_size` holds for one request's content; `message_keep` is for how long a message is listed after it can
    have left the queue, `idempotency_keep` for how long an Idempotency-Key is remembered, `dead_letter_keep` for how
    long a failed message is kept with its content, 0 for not at all. `trusted_networks` are those from which the
    operator may come without a token.
    """

    tokens: tuple[str, ...] = ()
    max_request_size: int = 50 * 1024 * 1024
    message_keep: float = 7 * 86400.0
    idempotency_keep: float = 86400.0
    dead_letter_keep: float = 3 * 86400.0
    trusted_networks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show no digest."""
        return f"HttpTerms(max_request_size={self.max_request_size})"
