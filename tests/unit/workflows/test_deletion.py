"""The account deletion workflows against activities of the test, on the SDK's executor."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from services.contracts.apps import ERASERS
from services.contracts.auth.accounts import (
    DELETE_ACCOUNT_WORKFLOW,
    ERASE_APP_WORKFLOW,
    AccountDeletion,
    DeleteAccountInput,
    DeletionStatus,
    RecordErasureInput,
)
from services.contracts.erasure import ErasedUser, EraseUserInput, eraser_of
from services.kit.clock import utc_now
from services.kit.dapr.workflows import WorkflowHost
from tests.requirements import requirement
from tests.support.workflow_engine import EPOCH, Engine, Instance
from workflows.deletion import workflow
from workflows.deletion.policy import STEPS_PER_RUN, poll_delay, retry_delay

ACCOUNT = DeleteAccountInput(user_id="ada", deletion_id="deletion_1")
MAX_HISTORY = 500


class Apps:
    """Activities of apps that need this many polls each, after this many failures in all."""

    def __init__(self, polls: int = 0, failures: int = 0) -> None:
        self.log: list[str] = []
        self.receipt: dict[str, dict[str, int]] = {}
        self._polls = polls
        self._left: dict[str, int] = {}
        self._failures = failures

    async def __call__(self, app: str, name: str, value: Any) -> BaseModel:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("gone")
        if name == "RecordErasure":
            return self._record(RecordErasureInput.model_validate(value))
        return self._erase(app, EraseUserInput.model_validate(value))

    def _record(self, part: RecordErasureInput) -> AccountDeletion:
        self.log.append(f"record {part.app}")
        if part.app:
            self.receipt[part.app] = part.removed
        return AccountDeletion(
            deletion_id="deletion_1", status=DeletionStatus.COMPLETED, requested_at=utc_now()
        )

    def _erase(self, app: str, request: EraseUserInput) -> ErasedUser:
        assert (request.user_id, request.deletion_id) == ("ada", "deletion_1")
        if request.count_only:
            self.log.append(f"count {app}")
            return ErasedUser(done=True, found={"things": 3})
        self.log.append(f"erase {app}")
        left = self._left.get(app, self._polls)
        self._left[app] = left - 1
        return ErasedUser(done=left <= 0)


def engine_of(apps: Apps) -> Engine:
    host = WorkflowHost()
    host.add_workflow(DELETE_ACCOUNT_WORKFLOW, workflow.delete_account)
    host.add_workflow(ERASE_APP_WORKFLOW, workflow.erase_app)
    return Engine(host, apps)


async def run(apps: Apps) -> Engine:
    """Run a deletion to its end, skipping the delays."""
    engine = engine_of(apps)
    instance = await engine.start(DELETE_ACCOUNT_WORKFLOW, "deletion_1", ACCOUNT)
    await engine.run(skip=True)
    result = AccountDeletion.model_validate(instance.result)
    assert (instance.status, result.status) == ("COMPLETED", DeletionStatus.COMPLETED)
    return engine


def children(engine: Engine) -> dict[str, Instance]:
    return {name: each for name, each in engine.instances.items() if each.parent}


@requirement("access:erasure")
async def test_each_app_is_counted_erased_and_recorded_and_auth_is_last() -> None:
    apps = Apps()
    engine = await run(apps)
    assert apps.log == [
        *("count llm", "erase llm", "record llm"),
        *("count auth", "erase auth", "record auth"),
        "record None",
    ]
    assert set(children(engine)) == {"deletion_1:llm", "deletion_1:auth"}


@requirement("access:erasure")
async def test_apps_are_erased_in_parallel_before_auth(monkeypatch: pytest.MonkeyPatch) -> None:
    more = [eraser_of("notes"), eraser_of("storage"), *ERASERS]
    monkeypatch.setattr(workflow, "ERASERS", more)
    apps = Apps(polls=1)
    await run(apps)
    begun = [each for each in apps.log if each.startswith("count")]
    assert apps.log[:3] == begun[:3] == ["count notes", "count storage", "count llm"]
    assert apps.log.index("count auth") > max(
        apps.log.index(f"record {app}") for app in ("notes", "storage", "llm")
    )
    assert apps.log[-1] == "record None"


@requirement("access:erasure")
async def test_the_receipt_has_the_counts_from_before_the_erasure() -> None:
    apps = Apps(polls=5)
    await run(apps)
    assert apps.receipt == {"llm": {"things": 3}, "auth": {"things": 3}}
    assert apps.log.count("erase llm") == 6


@pytest.mark.timeout(60)  # every step replays the history
@requirement("access:erasure", "kit:workflows:continue")
async def test_a_long_erasure_counts_once_and_keeps_its_history_short() -> None:
    apps = Apps(polls=2 * STEPS_PER_RUN)
    engine = engine_of(apps)
    await engine.start(DELETE_ACCOUNT_WORKFLOW, "deletion_1", ACCOUNT)
    longest = 0
    while engine.instances["deletion_1"].status == "RUNNING":
        assert engine.now < EPOCH + timedelta(days=1), "it does not end"
        longest = max(len(each.history) for each in engine.instances.values())
        assert longest < MAX_HISTORY
        await engine.advance(timedelta(seconds=30))
    assert apps.receipt == {"llm": {"things": 3}, "auth": {"things": 3}}
    assert apps.log.count("count llm") == 1
    assert children(engine)["deletion_1:llm"].runs > 2


@pytest.mark.timeout(60)
async def test_hundreds_of_failures_do_not_end_the_workflow() -> None:
    apps = Apps(failures=4 * STEPS_PER_RUN)
    engine = await run(apps)
    assert engine.instances["deletion_1"].runs == 1
    assert apps.receipt["llm"] == {"things": 3}


@requirement("access:erasure")
async def test_a_defect_in_one_app_leaves_the_others_erased_and_the_receipt_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workflow, "ERASERS", [eraser_of("notes"), *ERASERS])

    class OneBad(Apps):
        async def __call__(self, app: str, name: str, value: Any) -> BaseModel:
            if app == "notes":
                return RecordErasureInput(deletion_id="not an ErasedUser")
            return await super().__call__(app, name, value)

    apps = OneBad()
    engine = engine_of(apps)
    instance = await engine.start(DELETE_ACCOUNT_WORKFLOW, "deletion_1", ACCOUNT)
    await engine.run(skip=True)
    assert (instance.status, instance.failure.errorType) == ("FAILED", "ChildFailed")
    assert apps.log == ["count llm", "erase llm", "record llm"]


def test_delays_grow_to_a_limit() -> None:
    assert poll_delay(0) == timedelta(seconds=1)
    assert poll_delay(10_000) == timedelta(seconds=30)
    assert retry_delay(0) == timedelta(seconds=1)
    assert retry_delay(10_000) == timedelta(hours=1)
