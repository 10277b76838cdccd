"""A spool with its event log, and a receiver, for the tests of what applications hear."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from outreach_post import Post, Receiver


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    """Give a spool with webhooks, started."""
    post = Post(tmp_path / "spool")
    await post.hooks.start()
    yield post
    await post.hooks.stop()
    await post.spool.close()
    await post.client.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Give a receiver that listens."""
    receiver = Receiver()
    await receiver.peer.start()
    yield receiver
    await receiver.peer.stop()
