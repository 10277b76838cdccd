"""Joins what sites, rules and logins have taught a relay with the notes by which the next life knows it."""

from collections.abc import Callable
from hashlib import sha256

import msgspec

from smarthost.config_types import Login
from smarthost.delivery.connect import Connector, Unreached
from smarthost.delivery.remedies import Remedies
from smarthost.mail.route import Site
from smarthost.policy.capacity import Capacities, Learned
from smarthost.policy.notes import NoteKind
from smarthost.queue.bookkeeper import Bookkeeper

Clock = Callable[[], float]


class LoginPause(msgspec.Struct, frozen=True):
    """A login of a route, at an upstream of its pool where it has one, that is left alone until a Unix time, and why;
    `mark` tells whether it was changed since.
    """

    route: str
    login: str
    mark: str
    until: float
    cause: Unreached
    upstream: str = ""


class Memory:
    """Keeps what was learned, and recalls it when the bookkeeper starts. `login_of` gives a login by its name."""

    def __init__(
        self,
        bookkeeper: Bookkeeper,
        remedies: Remedies,
        connector: Connector,
        login_of: Callable[[str], Login | None],
        clock: Clock,
    ) -> None:
        """Listen to the parts."""
        self._notes, self._remedies, self._connector = bookkeeper.notes, remedies, connector
        self._login_of, self._clock = login_of, clock
        self.capacities = Capacities()
        self.capacities.keep = self._keep_capacity
        remedies.notes = bookkeeper.notes
        connector.login_paused = self._keep_pause
        bookkeeper.recall = self._recall

    def forget_logins(self) -> None:
        """Forget which logins are left alone, as after a reload: they may have been mended."""
        self._notes.drop_all(NoteKind.LOGIN)

    def tidy(self) -> None:
        """Forget what is over."""
        now = self._clock()
        self.capacities.tidy(now)
        for place, pause in self._notes.all_of(NoteKind.LOGIN, LoginPause).items():
            if pause.until <= now:
                self._notes.drop(NoteKind.LOGIN, place)

    def _recall(self) -> None:
        now = self._clock()
        self.capacities.restore(self._notes.all_of(NoteKind.CAPACITY, Learned), now)
        self._remedies.recall()
        for place, pause in self._notes.all_of(NoteKind.LOGIN, LoginPause).items():
            # A clock that was ahead does not make it longer than it was.
            until = min(pause.until, now + pause.cause.verdict.pause)
            if until > now and pause.mark == _mark(self._login_of(pause.login)):
                self._connector.leave_login_alone((pause.route, pause.login, pause.upstream), until, pause.cause)
            else:
                self._notes.drop(NoteKind.LOGIN, place)

    def _keep_capacity(self, site: str, learned: Learned | None) -> None:
        if learned is None:
            self._notes.drop(NoteKind.CAPACITY, site)
        else:
            self._notes.put(NoteKind.CAPACITY, site, learned)

    def _keep_pause(self, site: Site, until: float, cause: Unreached) -> None:
        route, login, upstream = site.route.name, site.route.login, site.route.upstream
        pause = LoginPause(route, login, _mark(self._login_of(login)), until, cause, upstream)
        self._notes.put(NoteKind.LOGIN, f"{route} {login} {upstream}".strip(), pause)


def _mark(login: Login | None) -> str:
    """Give 16 bits of a digest of a login: who mends a password and restarts need not wait, and who reads the spool
    learns nothing that helps to find the password.
    """
    return sha256(msgspec.json.encode(login, enc_hook=str)).hexdigest()[:4]
