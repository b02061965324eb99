"""Every example of the guide for clients runs and prints the output in the guide."""

import asyncio
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from services.auth.domain.firebase import user_id_of
from services.contracts.apps import app_of
from tests.requirements import requirement
from tests.support.firebase import PROJECT, FirebaseServer
from tests.support.guide import Example, examples_of, printed_by, script_of
from tests.support.platform import ROOT, Platform

GUIDE: Final = ROOT / "services/auth/clients.md"
EXAMPLES: Final = examples_of(GUIDE)
ORGANIZATION: Final = "members-of-the-guide"
SECONDS: Final = 100
PRELUDES: Final = {
    "js": """
const API = process.env.API;
const firebaseUser = { getIdToken: async () => process.env.ID_TOKEN };
const anotherFirebaseUser = { getIdToken: async () => process.env.BOB_ID_TOKEN };
""",
    "sh": "set -euo pipefail",
}
COMMANDS: Final = {"js": ("node", "--input-type=module", "-"), "sh": ("bash", "-s")}

pytestmark = pytest.mark.timeout(SECONDS + 20)


@dataclass(frozen=True, slots=True)
class Printed:
    """Output of a program by example, and its stderr."""

    by_example: dict[str, str]
    errors: str


async def run(language: str, google: FirebaseServer, platform: Platform) -> Printed:
    """Run the examples of a language in order."""
    ada, bob = f"ada-of-{language}", f"bob-of-{language}"
    for uid in (ada, bob):
        google.add(uid, email=f"{uid}@example.com")
    long = {"match": "a long story", "script": {"tokens": 600, "delay_ms": 100}}
    await platform.model("/__scripts", {"scripts": [long]})
    reader = user_id_of(PROJECT, bob)
    await platform.write_tuples((f"user:{reader}", "member", f"organization:{ORGANIZATION}"))
    env = {
        **os.environ,
        "API": f"{platform.edge_url}/api/v1",
        "ID_TOKEN": google.id_token(ada),
        "BOB_ID_TOKEN": google.id_token(bob),
        "BOB": reader,
        "ORGANIZATION": ORGANIZATION,
        "BOB_TOKEN": platform.token(reader),
    }
    chosen = [each for each in EXAMPLES if each.language == language]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[language], env=env, stdin=pipe, stdout=pipe, stderr=pipe
    )
    script = script_of(chosen, PRELUDES[language])
    try:
        said, errors = await asyncio.wait_for(process.communicate(script.encode()), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Printed(printed_by(said.decode()), errors.decode())


@pytest.fixture(scope="module")
async def printed(google: FirebaseServer, own_platform: Platform) -> dict[str, Printed]:
    """Output of the examples, by language; the programs run at the same time, each for a user of its own."""
    runs = (run(language, google, own_platform) for language in COMMANDS)
    return dict(zip(COMMANDS, await asyncio.gather(*runs), strict=True))


@requirement("access:guide")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.name)
def test_an_example_prints_what_the_guide_says(
    example: Example, printed: dict[str, Printed]
) -> None:
    program = printed[example.language]
    said = program.by_example.get(example.name)
    assert said is not None, f"did not run: {program.errors}"
    assert example.matches(said), f"printed {said!r}; {program.errors}"


@requirement("access:guide")
def test_the_guide_names_every_public_method_of_auth() -> None:
    said = GUIDE.read_text()
    names = [
        method.edge_path.rpartition("/")[2]
        for method in app_of("auth").methods
        if not method.internal
    ]
    assert "exchange-token" in names
    absent = [name for name in names if not re.search(rf"(?<![a-z-]){name}(?![a-z-])", said)]
    assert absent == []


@requirement("access:guide")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```sh\ntrue\n```\n", "name"),
        ("```\ntrue\n```\n", "name"),
        ("```python it-runs\ntrue\n```\n", "language"),
        ("```sh it-runs\ntrue\n```\n", "output"),
        ("```text it-runs\ntrue\n```\n", "output"),
        ("```sh it-runs\n```\n```sh it-runs\n```\n```text it-runs\n```\n", "output"),
    ],
)
def test_a_guide_with_an_invalid_block_is_refused(tmp_path: Path, text: str, why: str) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text(text)
    with pytest.raises(ValueError, match=why):
        examples_of(guide)
