"""Ending: how a session ended, and which jobs it leaves to others."""

import msgspec

from smarthost.delivery.transaction import Job
from smarthost.mail.outcome import Scope, Stage
from smarthost.mail.reply import Reply
from smarthost.policy.classify import NetFault


class Ending(msgspec.Struct, frozen=True):
    """How a session ended. A normal end (our QUIT, the peer's 421 or close while idle) has no fault.

    `scope` is SESSION at least; `pause` the seconds for which host or login shall be left alone. `untouched` are jobs
    whose end of data was not written and who are not to blame: they may go elsewhere at once, with no attempt spent.
    """

    reason: str
    scope: Scope = Scope.SESSION
    stage: Stage | None = None
    fault: NetFault | None = None
    reply: Reply | None = None
    pause: float = 0.0
    untouched: tuple[Job, ...] = ()
