"""Diagnosis: what could keep mail from going, looked at from this machine: disk, clock, certificate, listeners."""

import ctypes
import os
import socket
import ssl
from enum import StrEnum
from pathlib import Path

import msgspec

from smarthost.config import Config
from smarthost.crypto.tls import certificate_expiry
from smarthost.policy.admission import Listener, Tls

SOON = 14 * 86400.0  # seconds before a certificate's end from which on it is worth a word
INODES_LEFT = 0.05  # as the server has it
SKEW = 60.0  # seconds by which the clock may be behind what was written before
GREETING = 5.0  # seconds for a listener of our own
_TIME_ERROR = 5  # of adjtimex(2): nobody keeps the clock
_TIMEX = 512  # octets, more than any struct timex has


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """What a check found: a sentence, and what to do about it. `exit_code` is that of sysexits.h for a failure."""

    check: str
    verdict: Verdict
    text: str
    hint: str = ""
    exit_code: int = os.EX_CONFIG


def check_space(config: Config) -> Finding:
    """See whether the disk under the spool has room for mail."""
    folder = config.data_directory.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    state = os.statvfs(folder)
    free, minimum = state.f_bavail * state.f_frsize, config.submission.min_free_space
    text = f"{free // 2**20} MiB are free at {folder}, {minimum // 2**20} MiB are wanted"
    if free < minimum:
        return Finding("disk", Verdict.FAIL, text, "make room: mail is refused with 452 4.3.1", os.EX_TEMPFAIL)
    if state.f_files and state.f_favail / state.f_files < INODES_LEFT:
        hint = "remove files: mail is refused below 5 % of inodes"
        return Finding("disk", Verdict.FAIL, f"{state.f_favail} inodes are left at {folder}", hint, os.EX_TEMPFAIL)
    if free < 2 * minimum:
        return Finding("disk", Verdict.WARN, text, "make room before mail is refused")
    return Finding("disk", Verdict.OK, text)


def check_clock(config: Config, now: float) -> Finding:
    """See whether somebody keeps the clock, and whether it has gone back behind what the spool has written."""
    newest = max((path.stat().st_mtime for path in (config.data_directory / "spool").glob("spool.db*")), default=0.0)
    if newest > now + SKEW:
        text = f"the clock is {newest - now:.0f} s behind what the spool has written"
        return Finding("clock", Verdict.FAIL, text, "set the clock: retries and signatures go by it")
    if is_clock_kept() is False:
        hint = "run chrony or systemd-timesyncd: signatures and tokens are refused for a wrong time"
        return Finding("clock", Verdict.WARN, "nobody keeps the clock (adjtimex says that it is unsynchronised)", hint)
    return Finding("clock", Verdict.OK, "nothing speaks against the clock")


def is_clock_kept() -> bool | None:
    """Say whether the kernel takes its clock for synchronised (adjtimex(2)); None where it does not say."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def check_certificate(config: Config, now: float) -> Finding:
    """See how long the listeners' certificate is good for."""
    path = config.tls.certificate
    if all(listener.tls is Tls.NONE for listener in config.listeners):
        return Finding("certificate", Verdict.OK, "no listener uses TLS")
    if path is None:
        hint = "set [tls] certificate and key: clients that verify refuse this one"
        return Finding("certificate", Verdict.WARN, "the listeners show a self-signed certificate", hint)
    expires = expiry_of(path)
    if expires is None:
        return Finding("certificate", Verdict.FAIL, f"{path} cannot be read as PEM", "smarthost check says more")
    days = (expires - now) / 86400.0
    if days <= 0:
        return Finding("certificate", Verdict.FAIL, f"{path} expired {-days:.0f} days ago", "renew it")
    text = f"{path} is good for {days:.0f} days"
    return Finding(
        "certificate", Verdict.WARN if expires - now < SOON else Verdict.OK, text, "" if days > 14 else "renew it"
    )


def expiry_of(path: Path) -> float | None:
    """Give the Unix time at which the first certificate of a PEM file expires; None when there is none to read."""
    try:
        text = path.read_text("ascii", "replace")
        start, end = text.index("-----BEGIN CERTIFICATE-----"), text.index("-----END CERTIFICATE-----")
        return certificate_expiry(ssl.PEM_cert_to_DER_cert(text[start:end] + "-----END CERTIFICATE-----\n"))
    except (OSError, ValueError):
        return None


def check_listener(listener: Listener, is_running: bool) -> Finding | None:
    """See whether a listener answers as it shall; None for one whose address only the service knows."""
    place, name = _place_of(listener.address), f"listener {listener.address}"
    if place is None:
        return None
    try:
        with socket.socket(socket.AF_UNIX if isinstance(place, str) else _family(place[0])) as connection:
            connection.settimeout(GREETING)
            connection.connect(place)
            greeted = listener.protocol != "smtp" or listener.tls is Tls.IMPLICIT or listener.proxy_protocol
            greeting = b"" if greeted or not is_running else connection.recv(512)
    except OSError as error:
        if not is_running:
            return Finding(name, Verdict.OK, "nobody else has its address")
        text = f"it does not answer ({error.strerror or error})"
        return Finding(name, Verdict.FAIL, text, "smarthost status says where the relay listens", os.EX_UNAVAILABLE)
    if not is_running:
        hint = "stop the other program, or choose another address"
        return Finding(name, Verdict.FAIL, "another program has its address", hint, os.EX_UNAVAILABLE)
    if greeted or greeting.startswith(b"220"):
        return Finding(name, Verdict.OK, "it answers")
    said = greeting[:80].decode("ascii", "replace").strip()
    return Finding(name, Verdict.FAIL, f"it answers {said!r}", "the relay's log has the reason", os.EX_UNAVAILABLE)


def _place_of(address: str) -> tuple[str, int] | str | None:
    """Give where a listener can be reached from this machine."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) == 0:
        return None
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host), int(port)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
