"""docs/client.md: its examples are run, one after the other, as one program against a relay."""

import asyncio
import os
import re
import sys
from pathlib import Path

from http_house import HttpHouse

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


async def test_every_example_of_the_client(house: HttpHouse) -> None:
    """The examples of the document run to their end."""
    await house.open_http()
    _, token = await house.make_key("shop")
    blocks = _BLOCK.findall((ROOT / "docs" / "client.md").read_text())
    assert len(blocks) > 8
    url = f"http://{house.http[0]}:{house.http[1]}"
    program = "\n".join(blocks).replace('"http://127.0.0.1:9587", key="sh_..."', "")
    environment = os.environ | {"SMARTHOST_URL": url, "SMARTHOST_API_KEY": token, "PYTHONPATH": str(ROOT / "src")}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", program, env=environment, stderr=asyncio.subprocess.PIPE, stdout=-1
    )
    async with asyncio.timeout(60):
        said, fault = await run.communicate()
    assert run.returncode == 0, fault.decode()
    assert b"SUCCESS" in said


async def test_importing_the_client_is_light() -> None:
    """Whoever imports the client has neither an HTTP library nor a part of the relay with it; AsyncClient neither."""
    program = (
        "import sys, smarthost.client\n"
        "assert 'aiohttp' not in sys.modules\n"
        "smarthost.client.AsyncClient\n"
        "print({name.split('.')[1] for name in sys.modules if name.startswith('smarthost.')},"
        " 'litestar' in sys.modules)"
    )
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stdout=-1
    )
    said, _ = await run.communicate()
    assert said.decode().strip() == "{'client'} False"
