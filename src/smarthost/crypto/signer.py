"""Signer: a process beside the relay that makes RSA signatures, so that they do not fight for its interpreter.

A signature takes 0.5 to 0.8 ms of a core without the interpreter; but with threads each one begins and ends by taking
the interpreter from the event loop. Run as `python .../smarthost/crypto/signer.py REQUESTS RESULTS THREADS`, where the
first two are file descriptors of pipes; it imports nothing else of the relay. The keys come over standard input (PKCS#8
in DER, each behind its length); a result with the number 0 says that they were read. The process ends with its
requests' pipe.
"""

import fcntl
import os
import signal
import struct
import sys
import termios
import threading
import traceback
from collections.abc import Sequence
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key

REQUEST = struct.Struct(">QI32s")  # a number, which key, SHA-256 digest
RESULT = struct.Struct(">QH")  # the request's number, octets of the signature that follows
READY = 0  # the number of the result that says that the keys were read
LENGTH = struct.Struct(">I")
# A pipe takes up to 4096 octets (PIPE_BUF) as a whole, so that no request or result is ever torn between threads.
_PIPE_BUF = 4096
MOST_REQUESTS = _PIPE_BUF // REQUEST.size
_TOGETHER = 8  # signatures that go back in one write, so that the relay has a few messages to commit together
_PADDING = PKCS1v15()
_DIGEST = Prehashed(SHA256())


def sign_digest(private: RSAPrivateKey | Ed25519PrivateKey, digest: bytes) -> bytes:
    """Sign a SHA-256 digest: RSASSA-PKCS1-v1_5 (RFC 6376 3.3.1), or Ed25519 over the digest itself (RFC 8463 3)."""
    if isinstance(private, Ed25519PrivateKey):
        return private.sign(digest)
    return private.sign(digest, _PADDING, _DIGEST)


def read_keys(stream: BinaryIO) -> list[RSAPrivateKey]:
    """Read RSA keys until the stream's end; raises ValueError for anything else."""
    keys = []
    while head := stream.read(LENGTH.size):
        octets = stream.read(LENGTH.unpack(head)[0])
        # Whether the key's numbers fit together was looked at when the relay read its file.
        key = load_der_private_key(octets, None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("not an RSA key")
        keys.append(key)
    return keys


class Signer:
    """Signs what comes over one pipe and writes the signatures to another, with several threads."""

    def __init__(self, keys: Sequence[RSAPrivateKey], requests: int, results: int, threads: int) -> None:
        """Remember what to sign with, and the file descriptors."""
        self._keys, self._requests, self._results, self._threads = keys, requests, results, threads
        longest = max(((key.key_size + 7) // 8 for key in keys), default=0) + RESULT.size
        self._together = max(1, min(_TOGETHER, _PIPE_BUF // longest))

    def run(self) -> None:
        """Work until one of the pipes has no other end any more."""
        running = [threading.Thread(target=self._answer) for _ in range(self._threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    def _answer(self) -> None:
        try:
            self._sign_requests()
        except BaseException:
            traceback.print_exc()
            os._exit(os.EX_SOFTWARE)  # rather none than one that forgets a request

    def _sign_requests(self) -> None:
        while octets := os.read(self._requests, self._share() * REQUEST.size):
            parts = []
            for number, which, digest in REQUEST.iter_unpack(octets):
                signature = sign_digest(self._keys[which], digest)
                parts += [RESULT.pack(number, len(signature)), signature]
            try:
                os.write(self._results, b"".join(parts))
            except BrokenPipeError:
                return

    def _share(self) -> int:
        """Count the requests that one thread may take now; 1 when none waits."""
        waiting = int.from_bytes(fcntl.ioctl(self._requests, termios.FIONREAD, bytes(4)), sys.byteorder)
        return max(1, min(waiting // REQUEST.size // self._threads, self._together))


def main(requests: int, results: int, threads: int) -> None:
    """Be the signer, until the relay ends or wants no more signatures."""
    # Signals that are sent to a whole group are the relay's to follow: it may have mail to sign until it ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keys = read_keys(sys.stdin.buffer)
    os.write(results, RESULT.pack(READY, 0))
    Signer(keys, requests, results, threads).run()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
