"""Signers: has messages signed: RSA by the signer process, or by threads of ours while there is none."""

import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from functools import partial

from smarthost.crypto.dkim import Unsigned, sign_here
from smarthost.crypto.dkim_keys import Algorithm, SigningKey
from smarthost.crypto.signer import sign_digest
from smarthost.crypto.signer_link import SignerLink
from smarthost.queue.signing import Workers

log = logging.getLogger(__name__)

Done = Callable[[bytes | None], None]
OUT_OF_ORDER = 100  # requests; the signer's threads answer nearly in order
SILENCE = 10.0  # seconds without a signature after which a signer that owes one is ended
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0  # seconds until a signer that ended by itself is started again, doubling
_RSA = Algorithm.RSA_SHA256


class Job:
    """One message that is being signed. Mutable; `missing` counts the signatures that have not come."""

    __slots__ = ("asked_at", "done", "missing", "signatures", "unsigned")

    def __init__(self, unsigned: Unsigned, done: Done) -> None:
        """Begin without a signature."""
        self.unsigned, self.done = unsigned, done
        self.asked_at = 0.0
        self.signatures: list[bytes] = [b""] * len(unsigned.keys)
        self.missing = 0


class Signers:
    """Gives each message its signatures. For the event loop's thread, but where it says otherwise.

    What is submitted in one turn of the loop is prepared in a row and asked for by one write. Ed25519 takes 0.05 ms
    and is signed at once. A signer that ends or hangs costs no message: threads sign what it still owed.
    """

    def __init__(self, loop: AbstractEventLoop, threads: Workers) -> None:
        """Begin without a signer; `tend` starts one."""
        self._loop, self._threads = loop, threads
        self._submitted: list[tuple[Callable[[], Unsigned], Done]] = []
        self._link: SignerLink | None = None
        self._owed: dict[int, tuple[Job, int]] = {}  # by the number of the request: whose, and which signature of it
        self._number = self._answered = 0
        self._heard = self._may_start = 0.0
        self._pause = FIRST_PAUSE
        self._is_starting = self._is_closed = False

    def submit(self, prepare: Callable[[], Unsigned], done: Done) -> None:
        """Have a message signed; `done` gets its fields, on the loop or in a thread, or None after a fault of ours."""
        if not self._submitted:
            self._loop.call_soon(self._work)
        self._submitted.append((prepare, done))

    def tend(self, keys: Sequence[SigningKey]) -> None:
        """Once a second: see to it that a signer with these keys runs, and answers. Without RSA keys there is none."""
        wanted = [key for key in keys if key.algorithm is _RSA]
        link, now = self._link, self._loop.time()
        if link is not None and list(link.index) != wanted:
            self._end(link)
        elif link is not None and self._is_silent(link, now):
            self._end(link)
            self._put_off(f"has not answered for {SILENCE:.0f} s")
        if self._link is None and wanted and not self._is_starting and now >= self._may_start:
            self._is_starting = True
            self._threads.submit(partial(self._start, wanted))

    def close(self) -> None:
        """Have what is still owed signed by the threads, and end the signer."""
        self._is_closed = True
        if self._link is not None:
            self._end(self._link)
        self._work()

    def _work(self) -> None:
        """Prepare what was submitted and ask for its signatures."""
        submitted, self._submitted = self._submitted, []
        for prepare, done in submitted:
            try:
                self._ask(Job(prepare(), done))
            except Exception:
                log.exception("a message could not be prepared for its signature")
                _tell(done, None)
        if self._link is not None:
            self._link.send()

    def _ask(self, job: Job) -> None:
        unsigned, link = job.unsigned, self._link
        rsa = [at for at, key in enumerate(unsigned.keys) if key.algorithm is _RSA]
        if rsa and not (link is not None and link.is_ready and all(unsigned.keys[at] in link.index for at in rsa)):
            self._threads.submit(partial(_sign_here, job))
            return
        for at, key in enumerate(unsigned.keys):
            if key.algorithm is not _RSA:
                job.signatures[at] = sign_digest(key.private, unsigned.digests[at])
        if link is None or not rsa:
            _tell(job.done, unsigned.complete(job.signatures))
            return
        job.asked_at = self._loop.time()
        if not self._owed:
            self._heard = job.asked_at
        job.missing = len(rsa)
        for at in rsa:
            self._number += 1
            self._owed[self._number] = job, at
            link.ask(self._number, unsigned.keys[at], unsigned.digests[at])

    def _is_silent(self, link: SignerLink, now: float) -> bool:
        """Whether the signer answers nobody, or has forgotten a request: an old one, and later ones were answered."""
        if not self._owed:
            return not link.is_ready and now > self._heard + SILENCE
        number, (job, _) = next(iter(self._owed.items()))
        if now <= job.asked_at + SILENCE:
            return False
        return now > self._heard + SILENCE or self._answered > number + OUT_OF_ORDER or len(self._owed) < OUT_OF_ORDER

    def _start(self, keys: Sequence[SigningKey]) -> None:
        """Thread: start a signer."""
        try:
            link: SignerLink | Exception = SignerLink(keys)
        except Exception as error:
            link = error
        self._loop.call_soon_threadsafe(self._started, link)

    def _started(self, link: SignerLink | Exception) -> None:
        self._is_starting = False
        self._heard = self._loop.time()
        if isinstance(link, Exception):
            self._put_off(f"cannot be started ({getattr(link, 'strerror', '') or repr(link)})")
        elif self._is_closed:
            link.end()
        else:
            self._link = link
            self._loop.add_reader(link.results, self._read, link)

    def _read(self, link: SignerLink) -> None:
        """Take the signatures that have come."""
        self._heard = self._loop.time()
        if not link.read(self._take):
            self._end(link)
            self._put_off("has ended")

    def _take(self, number: int, signature: bytes) -> None:
        job, at = self._owed.pop(number)
        self._answered = max(self._answered, number)
        job.signatures[at] = signature
        job.missing -= 1
        self._pause = FIRST_PAUSE
        if not job.missing:
            _tell(job.done, job.unsigned.complete(job.signatures))

    def _end(self, link: SignerLink) -> None:
        """Do without the signer: what it owes, the threads make."""
        self._link = None
        self._loop.remove_reader(link.results)
        owed, self._owed = self._owed, {}
        for job in dict.fromkeys(job for job, _ in owed.values()):
            self._threads.submit(partial(_sign_here, job))
        self._threads.submit(link.end)

    def _put_off(self, what: str) -> None:
        self._may_start = self._loop.time() + self._pause
        log.warning("the signer %s: threads of the relay sign; the next try is in %.0f s", what, self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


def _sign_here(job: Job) -> None:
    """Thread: sign a whole message."""
    try:
        signed: bytes | None = sign_here(job.unsigned)
    except Exception:
        log.exception("a message could not be signed")
        signed = None
    _tell(job.done, signed)


def _tell(done: Done, signed: bytes | None) -> None:
    try:
        done(signed)
    except Exception:
        log.exception("a message that was signed could not be handed on")
