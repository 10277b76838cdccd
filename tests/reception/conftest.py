"""Runs tests that ask for `loop_factory` on both event loops."""

import asyncio

import pytest
import uvloop


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request):
    """Give what makes asyncio's loops, then what makes uvloop's."""
    return request.param
