"""Output: batches, and a reader that stops reading."""

import asyncio
import os
import threading
import time
from collections.abc import Sequence

from smarthost.report import output
from smarthost.report.output import Output


async def test_lines_arrive_soon_and_in_order() -> None:
    """A line that is alone arrives after the flush delay; more follow in their order."""
    reader, writer = os.pipe()
    out = Output(writer, asyncio.get_running_loop(), b"".join)
    out.write(b"one\n")
    out.write(b"two\n")
    assert await asyncio.wait_for(asyncio.to_thread(os.read, reader, 100), 5) == b"one\ntwo\n"
    thread = threading.Thread(target=out.write_from_anywhere, args=(b"three\n",))
    thread.start()
    assert await asyncio.wait_for(asyncio.to_thread(os.read, reader, 100), 5) == b"three\n"
    thread.join()
    out.write(b"four\n")
    out.close()
    out.write_from_anywhere(b"late\n")
    os.close(writer)
    assert os.read(reader, 100) == b"four\n"
    os.close(reader)


async def test_reader_that_stops_never_blocks_the_loop() -> None:
    """Lines for a full pipe are kept up to a bound and dropped beyond it, while the loop goes on."""
    reader, writer = os.pipe()
    out = Output(writer, asyncio.get_running_loop(), b"".join)
    line = b"x" * 65_535 + b"\n"
    started = time.perf_counter()
    count = output.MAX_BACKLOG // len(line) + 50
    for _ in range(count):
        out.write(line)
        out.flush()
        await asyncio.sleep(0)
    assert time.perf_counter() - started < 5
    assert 0 < out.dropped < 60
    out.close(timeout=0.05)
    wanted = (count - out.dropped) * len(line)
    received = 0
    while received < wanted:
        received += len(await asyncio.to_thread(os.read, reader, 1 << 20))
    os.close(reader)
    os.close(writer)


async def test_reader_that_is_gone_is_no_error() -> None:
    """When standard output is closed at the other end, lines are counted as dropped and nothing is raised."""
    reader, writer = os.pipe()
    os.close(reader)
    out = Output(writer, asyncio.get_running_loop(), b"".join)
    out.write(b"one\n")
    out.flush()
    for _ in range(200):
        out.write(b"two\n")
        out.flush()
        if out.dropped:
            break
        await asyncio.sleep(0.01)
    assert out.dropped
    out.close()
    os.close(writer)


async def test_full_batch_does_not_wait() -> None:
    """Lines are encoded together, and as soon as there are many of them."""
    reader, writer = os.pipe()
    batches: list[int] = []

    def encode(lines: Sequence[int]) -> bytes:
        batches.append(len(lines))
        return bytes(lines)

    out = Output(writer, asyncio.get_running_loop(), encode)
    for number in range(output.FLUSH_LINES + 1):
        out.write(number)
    assert batches == [output.FLUSH_LINES]
    out.close()
    assert batches == [output.FLUSH_LINES, 1]
    os.close(writer)
    assert os.read(reader, 1000) == bytes(range(output.FLUSH_LINES + 1))
    os.close(reader)
