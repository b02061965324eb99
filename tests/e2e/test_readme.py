"""The first conversation of the README runs as it is written there."""

import asyncio
import json
import os
import re

import pytest

from tests.requirements import requirement
from tests.support.guide import fences_of
from tests.support.platform import ROOT, Platform

README = ROOT / "README.md"
USER = "reader-of-the-readme"
SECONDS = 60
OPENED = ": open\n\n"
"""The comment with which every stream begins."""

pytestmark = pytest.mark.timeout(SECONDS * 3)


async def run(script: str, platform: Platform) -> str:
    """What a shell prints."""
    api = f"{platform.edge_url}/api/v1/llm/conversation"
    env = {**os.environ, "TOKEN": platform.token(USER), "API": api}
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script, env=env, stdout=pipe, stderr=pipe
    )
    said, problems = await asyncio.wait_for(shell.communicate(), SECONDS)
    assert shell.returncode == 0, problems.decode()
    return said.decode()


def commands() -> list[tuple[str, list[str]]]:
    """The curl commands of the README, each with the lines that it shows of the answer."""
    [block] = [body for _, _, body in fences_of(README) if "/create-conversation" in body]
    found = re.findall(r"^(curl (?:[^\n]*\\\n)*[^\n]*)\n((?:# [^\n]*\n)+)", block, re.MULTILINE)
    return [(command, shown.replace("# ", "").splitlines()) for command, shown in found]


def shows(shown: list[str], said: str) -> bool:
    """Whether the lines come in this order; `…` is any text, and so is that of the model."""
    lines = [re.sub(r'"text":"A"', '"text":"…"', line) for line in shown]
    pattern = ".*".join(rf"^{re.escape(line)}$" for line in lines).replace("…", "[^\n]*")
    return re.search(pattern, said, re.MULTILINE | re.DOTALL) is not None


@requirement("turns:stream", "turns:idempotent", "events:resume")
async def test_the_first_conversation_prints_what_the_readme_shows(platform: Platform) -> None:
    (create, created), (stream, events) = commands()
    said = await run(create, platform)
    assert shows(created, said), said
    stream = stream.replace("conv_…", json.loads(said)["conversationId"])
    whole = (await run(stream, platform)).removeprefix(OPENED)
    assert shows(events, whole), whole
    again = (await run(f"{stream} -H 'last-event-id: 2'", platform)).removeprefix(OPENED)
    assert again.startswith("id: 3\n")
    assert whole.endswith(again)
    assert len(await platform.model_calls("actor?")) == 1
