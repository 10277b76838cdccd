"""Record: one durable object of a tenant (a key, a template, a batch ...), as the spool keeps it."""

import math

import msgspec

DEFAULT_TENANT = "default"
"""Whose mail is that came without a login."""

RecordKey = tuple[str, str, str]
"""Kind, tenant and id. The tenant stands in every key, so that no question is asked without one."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One object. `data` is what its owner wrote, in whatever form the kind has (JSON as a rule).

    `due` is the Unix time at which somebody has to look at it again, `expires` the one from which on it is forgotten;
    infinite for never.
    """

    kind: str
    tenant: str
    id: str
    data: bytes
    due: float = math.inf
    expires: float = math.inf

    @property
    def key(self) -> RecordKey:
        """By which it is found."""
        return self.kind, self.tenant, self.id
