"""A disk that is really full, on a small tmpfs: refused and not lost, and no restart is needed when space is back."""

import shutil
import smtplib
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outside import need, need_root, succeeds
from relay_process import Relay, wait_until
from sending import compose, submit, transact
from sink_process import Sink

SIZE = "64m"  # the spool keeps some 20 MB of it aside


class SmallDisk:
    """A mounted tmpfs that can be filled to the last octet and given back."""

    def __init__(self, folder: Path) -> None:
        """Name the folder it is mounted on."""
        self.folder = folder
        self.filler = folder / "filler"

    def fill(self) -> None:
        """Write until nothing more goes in."""
        with self.filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue

    def leave(self, octets: int) -> None:
        """Write until only so much is free."""
        self.filler.write_bytes(b"\0" * (shutil.disk_usage(self.folder).free - octets))

    def empty(self) -> None:
        """Give the space back."""
        self.filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A tmpfs of its own; root only."""
    need_root()
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mounted = succeeds("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs", str(folder))
    need(mounted, "the right to mount a tmpfs")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, timeout=20, check=False)


@pytest.fixture
def relay_on_small_disk(small_disk: SmallDisk, make_relay: Callable[..., Relay]) -> Iterator[Relay]:
    """A relay whose spool is on the small disk, and which does not look at the free space beforehand."""
    relay = make_relay(data_directory=str(small_disk.folder / "data"), submission={"min_free_space": "0"})
    relay.start()
    yield relay
    relay.close()


def answer(relay: Relay, subject: str, size: int = 200) -> int:
    """Try to submit a message; give the code of the reply that decided."""
    try:
        submit(relay.port, subject, "250@example.com", size=size)
    except smtplib.SMTPResponseException as refusal:
        assert refusal.smtp_code != 452 or str(refusal.smtp_error, "ascii").startswith("4.3.1"), refusal
        return refusal.smtp_code
    return 250


@pytest.mark.parametrize("size", [20_000, 400_000])
def test_full_while_accepting(relay_on_small_disk: Relay, small_disk: SmallDisk, sink: Sink, size: int) -> None:
    """452 4.3.1 for small and large content while the disk is full; what was answered 250 arrives once."""
    relay = relay_on_small_disk
    answers = {f"before {size}": answer(relay, f"before {size}", size)}
    small_disk.fill()
    # The spool has some room in files that it has already grown, and in what it keeps aside: a few may still fit.
    number = 0
    while list(answers.values()).count(452) < 10:
        answers[f"full {number}"] = answer(relay, f"full {number}", size)
        number += 1
        assert number < 200, "a full disk refused less than ten of 200 messages"
    assert set(answers.values()) == {250, 452}
    small_disk.empty()
    wait_until(lambda: answer(relay, "probe", 200) == 250, "mail is taken again without a restart", 20, 0.5)
    answers["after"] = answer(relay, "after", size)
    sink.wait_for("after", 20)
    accepted = [subject for subject, code in answers.items() if code == 250]
    wait_until(lambda: set(accepted) <= set(sink.subjects()), "what was accepted has arrived", 20)
    arrived = Counter(subject for subject in sink.subjects() if subject != "probe")
    assert arrived == Counter(accepted)
    assert relay.running is not None and relay.running.poll() is None


def test_full_while_settling(relay_on_small_disk: Relay, small_disk: SmallDisk, sink: Sink) -> None:
    """The disk fills while messages are on their way: all arrive once, all are settled later."""
    relay = relay_on_small_disk
    subjects = [f"slow {number}" for number in range(10)]
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
        for subject in subjects:
            content = compose(subject, ["slow-700@example.com"])
            transact(client, content, ("slow-700@example.com",), sender="root@example.org")
    small_disk.fill()
    wait_until(lambda: len(sink.subjects()) >= 1, "the first has arrived", 20)
    time.sleep(3)
    assert relay.running is not None and relay.running.poll() is None
    small_disk.empty()
    wait_until(lambda: len(sink.subjects()) >= len(subjects), "all have arrived", 40)
    wait_until(lambda: not relay.queue(), "the queue is empty", 20)
    assert Counter(sink.subjects()) == Counter(subjects)


def test_below_the_reserve(small_disk: SmallDisk, make_relay: Callable[..., Relay], sink: Sink) -> None:
    """Below min_free_space clients get 452 4.3.1 although the disk is not full; above it mail is taken again."""
    relay = make_relay(data_directory=str(small_disk.folder / "data"), submission={"min_free_space": "12MiB"})
    relay.start()
    assert answer(relay, "room enough") == 250
    small_disk.leave(8 << 20)
    wait_until(lambda: answer(relay, "too little room") == 452, "452 below the reserve", 20, 0.3)
    small_disk.empty()
    wait_until(lambda: answer(relay, "room again") == 250, "250 above the reserve", 20, 0.3)
    sink.wait_for("room again")
    relay.close()
