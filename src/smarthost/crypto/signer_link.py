"""The relay's end of a signer: starts the process, sends it digests, and takes signatures from it."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from smarthost.crypto import signer
from smarthost.crypto.dkim_keys import SigningKey, private_octets
from smarthost.crypto.signer import LENGTH, MOST_REQUESTS, READY, REQUEST, RESULT

_MOST_THREADS = 4  # more signatures than four cores make, one event loop has no use for
_PIPE = 64 * 1024  # octets
_OPENSSL = "OPENSSL_ia32cap"  # OpenSSL's own variable: what it shall not see of the processor
_WITHOUT_ADX = ":~0x80000"  # bit 19 of the second word
# Of our environment the signer needs little; what it must not have are secrets, and the sockets meant for us.
_KEPT = frozenset({"PATH", "LANG", "LC_ALL", "PYTHONHOME", "LD_LIBRARY_PATH", "TZ", _OPENSSL})


class SignerLink:
    """One signer that runs, and the keys that it has (a link with other keys is another signer).

    Made in any thread, since it takes some milliseconds; the rest is for one thread, which calls `read` whenever
    `results` can be read. `is_ready` says whether the keys have arrived.
    """

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        """Start the process and hand it the keys; raises OSError when that cannot be done."""
        self.index = MappingProxyType({key: number for number, key in enumerate(keys)})
        self.is_ready = False
        self._unsent: list[bytes] = []
        self._torn = b""
        with ExitStack() as ours, ExitStack() as theirs:
            requests, self._requests = _pipe(theirs, ours)
            self.results, results = _pipe(ours, theirs)
            os.set_blocking(self._requests, False)
            os.set_blocking(self.results, False)
            self._child = _start(requests, results, theirs.enter_context(_in_memory(keys)))
            self._pipes = ours.pop_all()

    def ask(self, number: int, key: SigningKey, digest: bytes) -> None:
        """Want a signature; `number` is above 0 and comes back with it. It leaves with `send`."""
        self._unsent.append(REQUEST.pack(number, self.index[key], digest))

    def send(self) -> None:
        """Write what was asked for, as far as the pipe takes it; `read` writes the rest later."""
        unsent = self._unsent
        try:
            while unsent:
                os.write(self._requests, b"".join(unsent[:MOST_REQUESTS]))
                del unsent[:MOST_REQUESTS]
        except OSError:  # the pipe is full, or the signer has ended, which the end of its results will tell
            return

    def read(self, take: Callable[[int, bytes], None]) -> bool:
        """Hand on the signatures that have come, by number; False when the signer has ended."""
        try:
            octets = os.read(self.results, _PIPE)
        except BlockingIOError:
            return True
        if not octets:
            return False
        octets, at, head = self._torn + octets, 0, RESULT.size
        while len(octets) >= at + head:
            number, size = RESULT.unpack_from(octets, at)
            end = at + head + size
            if len(octets) < end:
                break
            if number == READY:
                self.is_ready = True
            else:
                take(number, octets[at + head : end])
            at = end
        self._torn = octets[at:]
        if self._unsent:
            self.send()
        return True

    def end(self) -> None:
        """End the process, which holds nothing that would be lost, and wait until it has."""
        self._pipes.close()
        self._child.kill()
        self._child.wait()


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Make a pipe whose ends are closed with these."""
    ends = os.pipe()
    for stack, end in zip((reader, writer), ends, strict=True):
        stack.callback(os.close, end)
    return ends


def _in_memory(keys: Sequence[SigningKey]) -> BinaryIO:
    """Write keys for the signer into a file that is nowhere but in memory: a pipe could be full, and nobody read it."""
    file = os.fdopen(os.memfd_create("keys"), "w+b")
    for key in keys:
        octets = private_octets(key)
        file.write(LENGTH.pack(len(octets)) + octets)
    file.seek(0)
    return file


def _start(requests: int, results: int, keys: BinaryIO) -> "subprocess.Popen[bytes]":
    threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    kept = {name: text for name, text in os.environ.items() if name in _KEPT}
    # By its path, and with our own search path: whatever was installed how ever, it is this version with our libraries.
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", signer.__file__, str(requests), str(results), str(threads)],
        stdin=keys,
        stdout=subprocess.DEVNULL,  # ours is the mail log
        pass_fds=(requests, results),
        env=quicker_rsa(_read("/proc/cpuinfo")) | kept | {"PYTHONPATH": path},
        cwd="/",
        process_group=0,  # a terminal's Ctrl-C is for us
    )


def quicker_rsa(processor: str) -> dict[str, str]:
    """Say how OpenSSL makes RSA signatures the quicker way, from what /proc/cpuinfo says: variables of environment.

    Where a processor has ADX, OpenSSL prefers that code to its AVX2 code (rsaz_avx2_eligible). On AMD's Zen 3 the
    latter takes 14 % less: 0.65 ms against 0.75 for 2048 bits, measured. Zen 4 has AVX-512 IFMA, which is far quicker
    than both and is preferred to both.
    """
    words = {name.strip(): value.split() for name, _, value in (line.partition(":") for line in processor.splitlines())}
    is_zen3 = words.get("vendor_id") == ["AuthenticAMD"] and words.get("cpu family") == ["25"]
    flags = words.get("flags", [])
    if is_zen3 and "adx" in flags and "avx2" in flags and "avx512ifma" not in flags:
        return {_OPENSSL: _WITHOUT_ADX}
    return {}


def _read(path: str) -> str:
    """Give a text of the system's; "" where it is hidden, as in a service without the rest of /proc."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
