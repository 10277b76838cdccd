"""docs/api.md: every example is run as it stands, by curl, against a relay."""

import asyncio
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from http_house import HttpHouse

from smarthost.policy.http_terms import HttpTerms
from smarthost.reception.keys import digest_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
_BLOCK = re.compile(r"```sh (\d{3})\n(.*?)```", re.DOTALL)


async def test_every_example_of_the_document(house: HttpHouse) -> None:
    """Each block answers with the status that it names; $ID is the id of the answer before."""
    await house.open_http(http=HttpTerms(tokens=(digest_of("operator-token"),)))
    _, token = await house.make_key("shop")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    soon, later = tomorrow.strftime("%Y-%m-%dT%H:%M:%SZ"), str(int(tomorrow.timestamp()))
    environment = {
        "PATH": os.environ["PATH"],
        "SERVER": f"http://{house.http[0]}:{house.http[1]}",
        "API": f"http://{house.http[0]}:{house.http[1]}/api/v1",
        "KEY": token,
        "OPERATOR": "operator-token",
        "ID": "",
    }
    blocks = _BLOCK.findall(DOCUMENT.read_text())
    assert len(blocks) > 20
    for wanted, block in blocks:
        script = block.replace("$SOON", soon).replace("$LATER", later).replace("curl ", "curl -s -w '\\n%{http_code}' ")
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script, env=environment, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await shell.communicate()
        body, _, status = said.decode().rpartition("\n")
        assert status == wanted, (block, body)
        if status in ("200", "201", "202") and body[:1] == "{" and "id" in (answer := json.loads(body)):
            environment["ID"] = answer["id"]
