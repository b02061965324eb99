"""Workflow definitions are deterministic."""

import pytest

from tests.contract.determinism import breaches
from tests.contract.sources import ROOT
from tests.requirements import requirement

GOOD = """
from datetime import timedelta
def generation(ctx, run):
    outcomes = yield from ctx.when_all([ctx.begin(STEP, run), ctx.timer(timedelta(seconds=5))])
    if outcomes:
        return (yield from ctx.continue_as_new(run))
    answer = yield from ctx.call(ANSWER, run)
    return answer
"""


@requirement("turns:deterministic-workflow")
def test_every_workflow_definition_is_deterministic() -> None:
    definitions = sorted((ROOT / "workflows").glob("*/workflow.py"))
    assert definitions, "there is a workflow to check"
    assert {path.parent.name: breaches(path.read_text()) for path in definitions} == {
        path.parent.name: [] for path in definitions
    }


def test_a_plain_definition_passes() -> None:
    assert breaches(GOOD) == []


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "import random",
        "import uuid",
        "import os",
        "import os.path",
        "from datetime import datetime",
        "from secrets import token_hex",
        "from asyncio import sleep",
        "ctx.settings.environ",
        "clock.now()",
        "async def step(): ...",
        "open('file')",
        "print('here')",
        "eval('1')",
        "hash(run)",
        "def step():\n    global state",
        "async def step():\n    await other()",
        "def step(ctx):\n    yield ctx.timer(delay)",
        "def step(ctx):\n    ctx.sleep(delay)",
        "def step(ctx):\n    return ctx.continue_as_new(run)",
        "def step(ctx):\n    yield from ctx._context.wait()",
        "for app in {'a', 'b'}: pass",
        "for app in set(apps): pass",
    ],
)
def test_the_checker_detects(line: str) -> None:
    assert breaches(line) != []
