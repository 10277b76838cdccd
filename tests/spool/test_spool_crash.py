"""What a crash leaves: every write of a workload is a moment to stop at, and what was answered must be there."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_workload import FILE_OCTETS, octets_of
from disk_replay import HERE, Act, Disk, build, journal_of, lay_out
from spool_samples import NOW, sample_id

from smarthost.mail.message import format_id
from smarthost.spool import record, recovery, reserve
from smarthost.spool.content import ContentFolder

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="the shim that journals writes needs gcc")
ROUNDS = 14
_CONTENTS = "SELECT id, head, crc, file, size, file_crc FROM message JOIN content USING (id)"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the shim once."""
    return build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def journal(library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Act]:
    """Journal the workload once, with the settings of production."""
    return journal_of(library, tmp_path_factory.mktemp("full"), "FULL", ROUNDS)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder in memory: these tests open a thousand spools, whose syncs prove nothing here."""
    monkeypatch.setattr(reserve, "RESERVE_OCTETS", 4096)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name) / "spool"


def missing(folder: Path, answers: list[str]) -> list[str]:
    """Recover a folder and say what contradicts the answers that were given."""
    connection, recovered = recovery.recover(folder, NOW)
    wrong = [f"set aside: {recovered.reason}"] if recovered.set_aside else []
    said = {kind: {int(line[1:]) for line in answers if line[0] == kind} for kind in "AaSs"}
    rows = {row[0]: row[1:] for row in connection.execute(_CONTENTS)}
    entries = connection.execute("SELECT message FROM entry").fetchall()
    contents = ContentFolder(folder / "content", reserve.Reserve(folder))
    for serial in sorted(said["a"]):
        row = rows.pop(sample_id(serial), None)
        if serial in said["S"] and row is not None:
            wrong.append(f"{serial} was settled and is back")
        if row is None:
            if serial in said["A"] and serial not in said["s"]:
                wrong.append(f"{serial} was answered and is gone")
            continue
        content = record.read_content(row[:4])
        expected = octets_of(serial) if serial % 7 else b""
        if content is None or content.head != expected:
            wrong.append(f"{serial} has another content")
        elif content.file and contents.measure(content.file) != (content.size, row[4]):
            wrong.append(f"{serial} has another content file")
    wrong += [f"{message} was never asked for" for message in rows]
    messages = {row[0] for row in connection.execute("SELECT id FROM message")}
    if messages != {message for (message,) in entries}:
        wrong.append("messages and entries do not agree")
    if messages != {row[0] for row in connection.execute("SELECT id FROM content")}:
        wrong.append("messages and contents do not agree")
    if connection.execute("SELECT value FROM meta WHERE key = 'entries'").fetchone()[0] != len(entries):
        wrong.append("the count of entries is wrong")
    if messages and connection.execute("SELECT value FROM meta WHERE key = 'last_id'").fetchone()[0] < max(messages):
        wrong.append("the high-water mark is behind a message")
    blobs = [blob for (blob,) in connection.execute("SELECT refs FROM event_log ORDER BY number")]
    logged = [tuple(ref[:2]) for blob in blobs for ref in record.read_refs(blob)]
    told = connection.execute("SELECT message, sequence FROM event").fetchall()
    if sorted(logged) != sorted(told):
        wrong.append("the event log and the events do not agree")
    if len(told) < len(said["A"]) + len(said["S"]):
        wrong.append("an answer has no event")
    connection.close()
    return wrong


def moments(journal: list[Act], kinds: str) -> Iterator[tuple[int, Disk]]:
    """Replay a journal and stop after each record of some kinds."""
    disk = Disk()
    for number, act in enumerate(journal):
        disk.apply(act)
        if act.kind in kinds and act.path != "answers":
            yield number, disk


def test_the_workload_meets_every_kind_of_write(journal: list[Act]) -> None:
    """The journal holds what the other tests rely on: checkpoints, content files and their end, syncs of folders."""
    written = {os.path.basename(act.path) for act in journal if act.kind == "W"}
    assert {"spool.db", "spool.db-wal", format_id(sample_id(7))} <= written
    synced = {act.path for act in journal if act.kind == "S"}
    assert {"", "content", "spool.db", "spool.db-wal"} <= synced
    assert any(act.kind == "U" and act.path.startswith("content/") for act in journal)
    starts = sum(act.kind == "W" and act.path == "spool.db-wal" and act.offset == 0 for act in journal)
    assert starts >= 2, "the log never started again from its front"
    answers = b"".join(act.data for act in journal if act.path == "answers").decode().split()
    assert sum(line[0] == "A" for line in answers) == 4 * ROUNDS


def test_every_answer_comes_after_a_sync(journal: list[Act]) -> None:
    """Between asking and answering an accept or a settle, a sync of the log completes that covers all it holds."""
    asked: dict[str, int] = {}
    written = synced = covered = -1
    for number, act in enumerate(journal):
        if act.path == "spool.db-wal":
            if act.kind == "W":
                written = number
            elif act.kind == "S":
                synced, covered = number, written
        elif act.path == "answers" and act.kind == "W":
            line = act.data.decode().strip()
            if line[0] in "as":
                asked[line] = number
            else:
                assert asked[line.lower()] < covered < synced, f"{line} was answered before the sync of its log"


def test_a_content_file_is_synced_before_its_answer(journal: list[Act]) -> None:
    """The file, and afterwards the folder that names it, are synced before the message is even asked to be accepted."""
    file = f"content/{format_id(sample_id(7))}"
    written = max(n for n, act in enumerate(journal) if act.path == file and act.kind == "W")
    synced = next(n for n, act in enumerate(journal) if act.path == file and act.kind == "S")
    named = next(n for n, act in enumerate(journal) if act.path == "content" and act.kind == "S" and n > synced)
    asked = next(n for n, act in enumerate(journal) if act.path == "answers" and act.data == b"a7\n")
    assert written < synced < named < asked
    assert FILE_OCTETS > 0


@pytest.mark.slow
def test_a_process_that_stops_after_any_write_loses_nothing(journal: list[Act], folder: Path) -> None:
    """Stopped after the n-th change of a file, for every n: recovery gives all or nothing of each message."""
    for number, disk in moments(journal, "CWTUR"):
        lay_out(disk.after_kill(), folder)
        assert missing(folder, disk.answers) == [], f"after record {number}"


@pytest.mark.slow
def test_a_power_cut_at_any_moment_loses_nothing_that_was_answered(journal: list[Act], folder: Path) -> None:
    """Only what was synced is left, or by luck some of the rest and torn: every answered message is there."""
    rng = random.Random(7)
    for number, disk in moments(journal, "CWTUR"):
        luck = rng if number % 2 else None
        lay_out(disk.after_power_cut(luck), folder)
        assert missing(folder, disk.answers) == [], f"after record {number}"


def test_without_syncs_a_power_cut_does_lose_mail(library: Path, tmp_path: Path, folder: Path) -> None:
    """The same test finds a loss with synchronous=OFF: it would notice if the spool forgot to sync."""
    disk = Disk()
    for act in journal_of(library, tmp_path, "OFF", 3):
        disk.apply(act)
    lay_out(disk.after_power_cut(), folder)
    assert any("was answered and is gone" in wrong for wrong in missing(folder, disk.answers))


@pytest.mark.slow
def test_kill_minus_nine_under_load_loses_nothing(tmp_path: Path) -> None:
    """A real process is killed at random moments, again and again on one folder: what it noted as answered is there."""
    rng = random.Random(3)
    folder = tmp_path / "spool"
    folder.mkdir()
    for turn in range(5):
        arguments = [sys.executable, HERE / "crash_workload.py", folder, "FULL", "100000"]
        process = subprocess.Popen(arguments)
        _await_growth(folder / "answers", process)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.05, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        answers = (folder / "answers").read_text().split()
        copy = tmp_path / f"copy{turn}"
        shutil.copytree(folder, copy)
        assert missing(copy, answers) == [], f"round {turn}"


def test_a_failed_sync_answers_nothing_more(library: Path, tmp_path: Path) -> None:
    """When a sync of the log fails, nothing is answered or written from then on, and `on_fatal` hears why."""
    root = tmp_path / "root"
    disk = Disk()
    failed = False
    for act in journal_of(library, tmp_path, "FULL", 20, fail_sync=9):
        disk.apply(act)
        assert not (failed and act.kind in "WST" and act.path.startswith("spool.db"))
        assert not (failed and act.path == "answers" and act.data[:1] in b"AS")
        failed = failed or act.kind == "F"
    assert failed
    told = (root / "fatal").read_text()
    assert "disk I/O error (SQLITE_IOERR_FSYNC)" in told
    assert missing(root, disk.answers) == []


def _await_growth(path: Path, process: subprocess.Popen[bytes]) -> None:
    size = path.stat().st_size if path.exists() else 0
    for _ in range(1000):
        if path.exists() and path.stat().st_size > size + 200:
            return
        assert process.poll() is None, "the workload ended"
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            pass
    raise AssertionError("the workload does nothing")
