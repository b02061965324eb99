"""Histories recorded from real runs are replayed by the code of today: an instance in flight survives an upgrade."""

from collections.abc import Generator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.contracts.llm.turns import GENERATION_WORKFLOW, GenerationInput, TurnOutcome
from services.kit.dapr.workflows import Workflow, WorkflowContext, WorkflowHost
from services.kit.references import AnyWorkflow
from tests.requirements import requirement
from tests.support.workflow_histories import (
    ADVICE,
    HISTORIES,
    ChangedWorkflow,
    History,
    replay,
)
from workflows.app import hosted_workflows
from workflows.generation.workflow import generation

RECORDED = sorted(HISTORIES.glob("*.json"))


def of_this_app() -> dict[AnyWorkflow, Workflow]:
    """Without those that other tests register."""
    hosted = hosted_workflows()
    return {ref: each for ref, each in hosted.items() if each.__module__.startswith("workflows.")}


def host_of(workflows: Mapping[AnyWorkflow, Workflow]) -> WorkflowHost:
    host = WorkflowHost()
    for ref, function in workflows.items():
        host.add_workflow(ref, function)
    return host


@requirement("upgrade:histories")
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_history_is_repeated_step_by_step(path: Path) -> None:
    history = History.load(path)
    assert history.has_ended
    replay(host_of(of_this_app()), history)


@requirement("upgrade:histories")
def test_every_workflow_has_a_recorded_history() -> None:
    recorded = {History.load(path).workflow for path in RECORDED}
    assert recorded == {ref.name for ref in of_this_app()}, (
        "record a new workflow: `uv run python -m tests.support.record_histories`"
    )


def one_more_wait(ctx: WorkflowContext, turn: GenerationInput) -> Generator[Any, Any, TurnOutcome]:
    """The workflow with a step that it did not have."""
    yield from ctx.sleep(timedelta(seconds=1))
    return (yield from generation(ctx, turn))


def no_wait(ctx: WorkflowContext, turn: GenerationInput) -> Generator[Any, Any, TurnOutcome]:
    """The workflow without a step that it had."""
    del ctx, turn
    yield from ()
    return TurnOutcome()


@requirement("upgrade:histories")
@pytest.mark.parametrize("changed", [one_more_wait, no_wait])
def test_a_changed_workflow_is_refused_with_advice(changed: Workflow) -> None:
    history = History.load(HISTORIES / "generation.json")
    with pytest.raises(ChangedWorkflow) as refused:
        replay(host_of({GENERATION_WORKFLOW: changed}), history)
    assert "GenerationWorkflow does not repeat execution" in str(refused.value)
    assert ADVICE in str(refused.value)
