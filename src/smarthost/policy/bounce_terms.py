"""Whose bounces come back to the relay itself, and what it takes of them."""

import msgspec

from smarthost.policy.glob import compile_globs


class BounceTerms(msgspec.Struct, frozen=True):
    """What [bounces] says; without a `domain` nothing of it is in use. Times are seconds, sizes octets.

    Mail that came by HTTP leaves with return paths of the domain where `http` is set, also mail that names a return
    path of its own where `replaces_return_path` is. Mail by SMTP does where its reverse-path matches one of `senders`,
    or its user or route is named. A return path is good for `lifetime` from when its message came.
    """

    domain: str = ""
    secret: str = ""
    http: bool = True
    replaces_return_path: bool = False
    senders: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    lifetime: float = 30 * 86400.0
    max_message_size: int = 10 * 1024 * 1024
    max_connections: int = 100
    message_rate: tuple[str, ...] = ("100/s,max_burst=500",)

    def __repr__(self) -> str:
        """Show no secret."""
        return f"BounceTerms(domain={self.domain!r})"

    @property
    def mailbox(self) -> str:
        """The mailbox that return paths are made of."""
        return f"bounces@{self.domain}"

    @property
    def is_for_smtp(self) -> bool:
        """Whether any mail by SMTP is meant."""
        return bool(self.senders or self.users or self.routes)

    def mean(self, reverse_path: str, user: str, route: str) -> bool:
        """Whether mail by SMTP leaves with a return path of ours."""
        if user in self.users or route in self.routes:
            return True
        return bool(self.senders) and compile_globs(self.senders).fullmatch(reverse_path) is not None
