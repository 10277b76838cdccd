"""Requests that schemathesis makes of the OpenAPI document: none ends in an error of ours, each answer is as told."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from http_house import HttpHouse
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Run a relay in a loop of its own; gives its address and a key."""
    folder: Path = tmp_path_factory.mktemp("generated") / "data"
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def open_house() -> tuple[HttpHouse, str]:
        house = HttpHouse(folder)
        await house.open_http()
        _, token = await house.make_key("shop")
        return house, token

    house, token = asyncio.run_coroutine_threadsafe(open_house(), loop).result(60)
    yield f"http://{house.http[0]}:{house.http[1]}", token
    asyncio.run_coroutine_threadsafe(house.close(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def test_generated_requests(relay: tuple[str, str]) -> None:
    """Whatever fits the document, on every route of it, is answered as the document says."""
    address, token = relay
    # A stream has no end that a generated request could wait for.
    document = schemathesis.openapi.from_url(address + "/api/v1/openapi.json").exclude(path_regex="/stream$")
    asked = set()
    for result in document.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(
                base_url=address, headers={"Authorization": f"Bearer {token}"}, checks=CHECKS, timeout=20
            )

        ask()
        asked.add(operation.label)
    assert len(asked) > 10
