"""Decides whether a user's password is right: off the event loop, by two threads, and remembered once it was."""

import asyncio
import hmac
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from smarthost.crypto.password import hash_password, verify_password
from smarthost.mail.key import Scope, key_id_of
from smarthost.mail.reply import AUTH_BUSY, BAD_CREDENTIALS, TOO_MANY_FAILURES, Reply
from smarthost.policy.admission import User
from smarthost.policy.ledger import Ledger
from smarthost.policy.rate import Cells, parse_rate
from smarthost.reception.failures import Failures
from smarthost.reception.keys import Keys

THREADS = 2  # each hash takes 19 MiB while it is made
MOST_WAITING = 32
MOST_REMEMBERED = 1024


class Credentials:
    """The users, their message rates, and the passwords that were right before; an API key is a password, too.

    A right password is remembered as a keyed hash under a random key of this process, until the user's stored hash
    changes: a busy application does not pay 20 ms for each connection. Wrong ones are never remembered.
    """

    def __init__(self, users: Sequence[User], clock: Callable[[], float], ledger: Ledger) -> None:
        """Start with users; `clock` gives Unix seconds, `ledger` the cells of their rates."""
        self._clock, self._ledger = clock, ledger
        self._key = secrets.token_bytes(32)
        self._users: dict[str, User] = {}
        self._rates: dict[str, Cells] = {}
        self._remembered: dict[str, tuple[str, bytes]] = {}
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._decoy = ""
        self.keys: Keys | None = None
        self.failures = Failures(clock)
        self.replace(users)

    def replace(self, users: Sequence[User]) -> None:
        """Take other users, as after a reload; what the same rates have counted stands."""
        self._users = {user.name: user for user in users}
        # Not strict: what is counted here is written beside the message that is accepted.
        self._rates = {
            user.name: self._ledger.cells(f"user {user.name}", map(parse_rate, user.message_rate), is_strict=False)
            for user in users
            if user.message_rate
        }
        self._remembered = {
            name: (hashed, seal)
            for name, (hashed, seal) in self._remembered.items()
            if name in self._users and self._users[name].password == hashed
        }
        # An unknown user is checked against a known one's hash, so that both take the same time.
        self._decoy = users[0].password if users else hash_password(secrets.token_urlsafe())

    def wait(self, identity: str, key: str = "") -> float:
        """Give the seconds until a user, who may have shown a key, may send another message; 0.0 when it may now."""
        cells = self._rates.get(identity)
        seconds = cells.wait(self._clock()) if cells is not None else 0.0
        return max(seconds, self.keys.wait(key)) if key and self.keys is not None else seconds

    def take(self, identity: str, key: str = "") -> None:
        """Count a message of a user, and of the key that was shown."""
        cells = self._rates.get(identity)
        if cells is not None:
            cells.take(self._clock())
        if key and self.keys is not None:
            self.keys.take(key)

    def of_tenant(self, tenant: str, key: str) -> User:
        """Give who a tenant's key (its id; "" for the operator) stands for: the user of that name, with its rates."""
        user = self._users.get(tenant)
        if user is None:
            return User(tenant, "", key=key)
        return msgspec.structs.replace(user, key=key) if key else user

    async def verify(self, name: str, password: str, address: str) -> User | Reply:
        """Check a login from an IP address ("" is a local socket).

        Gives the user, or the reply that refuses: 535 for a wrong name or password, 454 when too many logins wait,
        421 when the address has failed too often.
        """
        if self.failures.is_blocked(address):
            return TOO_MANY_FAILURES
        if self.keys is not None and key_id_of(password) is not None:
            # An API key is itself both name and password: what is said for a name does not count.
            key = self.keys.verify(password)
            if key is not None and Scope.SEND in key.scopes:
                return self.of_tenant(key.tenant, key.id)
        user = self._users.get(name)
        seal = hmac.digest(self._key, f"{name}\0{password}".encode("utf-8", "surrogatepass"), "sha256")
        if user is not None and self._remembers(user, seal):
            return user
        running = self._running.get(seal)
        if running is None:
            if len(self._running) >= THREADS + MOST_WAITING:
                return AUTH_BUSY
            running = self._start(seal, user.password if user is not None else self._decoy, password)
        # Shielded: others may wait for the same answer when this session ends.
        fits = await asyncio.shield(running)
        if fits and user is not None and self._is_current(user):
            self._remember(user, seal)
            return self._users[name]
        self.failures.add(address)
        return TOO_MANY_FAILURES if self.failures.is_blocked(address) else BAD_CREDENTIALS

    def close(self) -> None:
        """Stop the threads; logins that wait are given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, seal: bytes, hashed: str, password: str) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, verify_password, hashed, password)
        # One hash for a pool of connections that log in at once with the same password.
        self._running[seal] = running
        running.add_done_callback(lambda _: self._running.pop(seal, None))
        return running

    def _is_current(self, user: User) -> bool:
        now = self._users.get(user.name)
        return now is not None and now.password == user.password

    def _remembers(self, user: User, seal: bytes) -> bool:
        known = self._remembered.get(user.name)
        return known is not None and known[0] == user.password and hmac.compare_digest(known[1], seal)

    def _remember(self, user: User, seal: bytes) -> None:
        if user.name not in self._remembered and len(self._remembered) >= MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[user.name] = (user.password, seal)
