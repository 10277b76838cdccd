"""Keeps the API keys: in memory to be looked up, in the spool to outlive the process, and never the token itself."""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Sequence

import msgspec

from smarthost.mail.key import Key, Scope, key_id_of
from smarthost.mail.record import Record
from smarthost.policy.ledger import Ledger
from smarthost.policy.rate import Cells, parse_rate
from smarthost.spool.store import Fault, RecordStore

KIND = "key"
PAGE = 500  # records that are read at a time
USE_KEPT = 60.0  # seconds between two writes of when keys were used

# Without i, l, o and u, so that an id can be read aloud; 8 of them are 40 bits.
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
_log = logging.getLogger(__name__)


class KeysUnwritable(OSError):
    """Keys could not be written, as when the disk is full; nothing has changed."""


class Keys:
    """All API keys. A key that was revoked is good for nothing from that moment on; its record stays for the list.

    `ended` are called with each key that was revoked or has expired, so that open sessions end.
    """

    def __init__(self, records: RecordStore, clock: Callable[[], float], ledger: Ledger) -> None:
        """Know none yet; `clock` gives Unix seconds, `ledger` the cells of their rates."""
        self._records, self._clock, self._ledger = records, clock, ledger
        self._keys: dict[str, Key] = {}
        self._rates: dict[str, Cells] = {}
        self._used: set[str] = set()
        self._looked, self._next_flush = 0.0, 0.0
        self.ended: list[Callable[[Key], None]] = []

    async def start(self) -> None:
        """Read what is kept."""
        self._looked = self._clock()
        after = ("", "")
        while rows := await self._records.all(KIND, after, PAGE):
            after = rows[-1].tenant, rows[-1].id
            for row in rows:
                try:
                    self._take(msgspec.json.decode(row.data, type=Key))
                except msgspec.DecodeError:
                    _log.error("the record of key %s cannot be read; it opens nothing", row.id)

    def verify(self, token: str) -> Key | None:
        """Give the key that a token is, if it is good now, and note its use."""
        key = self._keys.get(key_id_of(token) or "")
        if key is None or not hmac.compare_digest(digest_of(token), key.digest):
            return None
        now = self._clock()
        if not key.is_good(now):
            return None
        key.used = now
        self._used.add(key.id)
        return key

    def wait(self, identity: str) -> float:
        """Give the seconds until a key, by its id, may send another message; 0.0 when it may now."""
        cells = self._rates.get(identity)
        return cells.wait(self._clock()) if cells is not None else 0.0

    def take(self, identity: str) -> None:
        """Count a message of a key."""
        cells = self._rates.get(identity)
        if cells is not None:
            cells.take(self._clock())

    async def add(
        self, tenant: str, scopes: Sequence[Scope], name: str, expires: float, message_rate: Sequence[str] = ()
    ) -> tuple[Key, str]:
        """Make a key; gives it and its token, which nobody can give again. Raises KeysUnwritable."""
        identity = "".join(secrets.choice(_LETTERS) for _ in range(8))
        while identity in self._keys:
            identity = "".join(secrets.choice(_LETTERS) for _ in range(8))
        token = f"sh_{identity}_{secrets.token_urlsafe(32)}"
        key = Key(identity, tenant, digest_of(token), tuple(scopes), self._clock(), name, expires, tuple(message_rate))
        await self._write([key])
        self._take(key)
        return key, token

    async def revoke(self, tenant: str | None, identity: str) -> Key | None:
        """Make a key of a tenant (None: of any) good for nothing; None when there is none. Raises KeysUnwritable.

        It is so at once; when it cannot be written, that is an error, but it stays so until the relay ends.
        """
        key = self._keys.get(identity)
        if key is None or (tenant is not None and key.tenant != tenant):
            return None
        if not key.revoked:
            key.revoked = self._clock()
            self._end(key)
        await self._write([key])
        return key

    def listed(self, tenant: str | None = None) -> list[Key]:
        """Give the keys of a tenant, or of all, oldest first."""
        mine = (key for key in self._keys.values() if tenant is None or key.tenant == tenant)
        return sorted(mine, key=lambda key: (key.created, key.id))

    def tick(self, now: float) -> None:
        """Called each second: end what has expired, and write now and then which keys were used."""
        for key in [key for key in self._keys.values() if self._looked < key.expires <= now and not key.revoked]:
            self._end(key)
        self._looked = max(now, self._looked)
        if self._used and now >= self._next_flush:
            self._next_flush = now + USE_KEPT
            used, self._used = self._used, set()
            self._records.write([_record(self._keys[identity]) for identity in used])

    def close(self) -> None:
        """Write what was used lately, before the spool closes."""
        if self._used:
            self._records.write([_record(self._keys[identity]) for identity in self._used])
            self._used = set()

    def _take(self, key: Key) -> None:
        self._keys[key.id] = key
        if key.message_rate:
            rates = map(parse_rate, key.message_rate)
            self._rates[key.id] = self._ledger.cells(f"key {key.id}", rates, is_strict=False)

    def _end(self, key: Key) -> None:
        for tell in self.ended:
            tell(key)

    async def _write(self, keys: Sequence[Key]) -> None:
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._records.write([_record(key) for key in keys], done=written.set_result)
        if (fault := await asyncio.shield(written)) is not None:
            raise KeysUnwritable(f"the keys could not be written: {fault}")


def digest_of(token: str) -> str:
    """Give what is kept of a token: its SHA-256, in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _record(key: Key) -> Record:
    return Record(KIND, key.tenant, key.id, msgspec.json.encode(key))
