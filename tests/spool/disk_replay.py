"""Replays a disk journal: the files as a killed process or a power cut would have left them at any moment."""

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
_SECTOR = 512


class Act(NamedTuple):
    """One record of the journal; `path` is relative to the journal's root, "" for the root."""

    kind: str
    path: str
    offset: int
    data: bytes


def build(folder: Path) -> Path:
    """Compile the shim."""
    library = folder / "disk_journal.so"
    source = HERE / "disk_journal.c"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


def journal_of(library: Path, folder: Path, synchronous: str, rounds: int, fail_sync: int = 0) -> list[Act]:
    """Run the workload in an empty folder under the shim and read its journal.

    With `fail_sync`, that sync of the log and all later ones fail with EIO.
    """
    root, journal = folder / "root", folder / "journal"
    root.mkdir()
    script = HERE / "crash_workload.py"
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "JOURNAL_ROOT": str(root),
        "JOURNAL_FILE": str(journal),
        "JOURNAL_FAIL_SYNC": str(fail_sync),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    subprocess.run([sys.executable, script, root, synchronous, str(rounds)], env=environment, check=True, timeout=50)
    return list(read_journal(journal, str(root)))


def read_journal(journal: Path, root: str) -> Iterator[Act]:
    """Read the records."""
    octets = journal.read_bytes()
    place = 0
    while place < len(octets):
        kind = chr(octets[place])
        path_length, length, offset = struct.unpack_from("=QQQ", octets, place + 1)
        place += 25
        path = octets[place : place + path_length].decode()
        place += path_length
        data = octets[place : place + length]
        place += length
        if kind == "R":
            data = os.path.relpath(data.decode(), root).encode()
        yield Act(kind, "" if path == root else os.path.relpath(path, root), offset, data)


class _File:
    """A file's octets now, and as last synced, with what was written since."""

    def __init__(self) -> None:
        self.octets = bytearray()
        self.synced = b""
        self.since: list[Act] = []

    def apply(self, act: Act) -> None:
        self.since.append(act)
        change(self.octets, act)

    def sync(self) -> None:
        self.synced = bytes(self.octets)
        self.since.clear()

    def after_power_cut(self, rng: random.Random | None) -> bytes:
        """Give the synced octets; with `rng`, some later writes reached the disk too, some in part."""
        octets = bytearray(self.synced)
        for act in self.since if rng else ():
            luck = rng.random()
            if luck < 0.4:
                change(octets, act)
            elif luck < 0.5 and act.kind == "W" and len(act.data) > _SECTOR:
                whole = rng.randrange(len(act.data) // _SECTOR) * _SECTOR
                change(octets, act._replace(data=act.data[:whole]))
        return bytes(octets)


def change(octets: bytearray, act: Act) -> None:
    """Apply a write or a truncation."""
    if act.kind == "W":
        if len(octets) < act.offset:
            octets.extend(bytes(act.offset - len(octets)))
        octets[act.offset : act.offset + len(act.data)] = act.data
    elif len(octets) > act.offset:
        del octets[act.offset :]
    else:
        octets.extend(bytes(act.offset - len(octets)))


class Disk:
    """The files and names below a root, and which of them would survive a power cut.

    A name survives when its folder was synced since; SQLite's log index and the notes of the workload are left out.
    """

    def __init__(self) -> None:
        """Start with an empty root."""
        self._names: dict[str, _File] = {}
        self._synced_names: dict[str, _File] = {}
        self.answers: list[str] = []

    def apply(self, act: Act) -> None:
        """Do what a record says."""
        if act.path == "answers":
            self.answers += act.data.decode().split()
        elif act.kind == "U":
            self._names.pop(act.path, None)
        elif act.kind == "R":
            self._names[act.data.decode()] = self._names.pop(act.path)
        elif act.kind == "S":
            self._sync(act.path)
        elif act.kind in "WTC":
            file = self._names.setdefault(act.path, _File())
            if act.kind != "C":
                file.apply(act)

    def _sync(self, path: str) -> None:
        if path in self._names:
            self._names[path].sync()
            return
        for names, others in ((self._names, self._synced_names), (self._synced_names, self._names)):
            for name in [name for name in names if os.path.dirname(name) == path]:
                if names is self._names:
                    others[name] = names[name]
                elif name not in others:
                    del names[name]

    def after_kill(self) -> dict[str, bytes]:
        """Give the files that a killed process leaves: the kernel keeps every write."""
        return {name: bytes(file.octets) for name, file in self._names.items()}

    def after_power_cut(self, rng: random.Random | None = None) -> dict[str, bytes]:
        """Give the files that a power cut leaves; with `rng`, some of what was not synced is there by luck."""
        names = dict(self._synced_names)
        if rng:
            names |= {name: file for name, file in self._names.items() if rng.random() < 0.5}
            for name in [name for name in names if name not in self._names and rng.random() < 0.5]:
                del names[name]
        return {name: file.after_power_cut(rng) for name, file in names.items()}


def lay_out(files: dict[str, bytes], folder: Path) -> None:
    """Write files into a folder, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "content").mkdir(parents=True)
    for name, octets in files.items():
        if not name.endswith("-shm"):
            (folder / name).write_bytes(octets)
