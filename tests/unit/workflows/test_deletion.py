"""The account deletion workflow against fake activities."""

from collections.abc import Generator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from services.contracts.apps import ERASERS
from services.contracts.auth.accounts import (
    AccountDeletion,
    DeleteAccountInput,
    DeletionStatus,
    RecordErasureInput,
)
from services.contracts.erasure import ErasedUser, EraseUserInput
from services.kit.clock import utc_now
from services.kit.dapr.workflows import ActivityFailed
from services.kit.references import ActivityRef
from tests.requirements import requirement
from workflows.deletion.policy import poll_delay, retry_delay
from workflows.deletion.workflow import delete_account

ACCOUNT = DeleteAccountInput(user_id="ada", deletion_id="deletion_1")


class Apps:
    """A workflow context whose apps need this many polls, after this many failures."""

    def __init__(self, polls: int = 0, failures: int = 0) -> None:
        self.log: list[str] = []
        self.receipt: dict[str, dict[str, int]] = {}
        self._polls = dict.fromkeys((eraser.app_id for eraser in ERASERS), polls)
        self._failures = failures
        self.slept: list[timedelta] = []

    def call(self, ref: ActivityRef[Any, Any], value: Any) -> Generator[Any, Any, Any]:
        yield
        if self._failures:
            self._failures -= 1
            details = SimpleNamespace(
                errorMessage="gone", errorType="Gone", stackTrace=StringValue()
            )
            raise ActivityFailed("gone", details)  # type: ignore[arg-type]
        return self._answer(ref.app_id, value)

    def sleep(self, duration: timedelta) -> Generator[Any, Any, None]:
        self.slept.append(duration)
        yield

    def _answer(self, app: str, value: EraseUserInput | RecordErasureInput) -> Any:
        if isinstance(value, RecordErasureInput):
            self.log.append(f"record {value.app}")
            if value.app:
                self.receipt[value.app] = value.removed
            return AccountDeletion(
                deletion_id="deletion_1", status=DeletionStatus.COMPLETED, requested_at=utc_now()
            )
        if value.count_only:
            self.log.append(f"count {app}")
            return ErasedUser(done=True, found={"things": 3})
        self.log.append(f"erase {app}")
        self._polls[app] -= 1
        return ErasedUser(done=self._polls[app] < 0)


def run(apps: Apps) -> AccountDeletion:
    steps = delete_account(apps, ACCOUNT)  # type: ignore[arg-type]
    try:
        while True:
            next(steps)
    except StopIteration as ended:
        return ended.value


@requirement("access:erasure")
def test_each_app_is_counted_erased_and_recorded_and_auth_is_last() -> None:
    apps = Apps()
    assert run(apps).status is DeletionStatus.COMPLETED
    assert apps.log == [
        *("count llm", "erase llm", "record llm"),
        *("count auth", "erase auth", "record auth"),
        "record None",
    ]


@requirement("access:erasure")
def test_the_receipt_has_the_counts_from_before_the_erasure() -> None:
    apps = Apps(polls=5)
    run(apps)
    assert apps.receipt == {"llm": {"things": 3}, "auth": {"things": 3}}
    assert apps.log.count("erase llm") == 6


def test_a_hundred_failures_do_not_end_the_workflow() -> None:
    apps = Apps(failures=100)
    assert run(apps).status is DeletionStatus.COMPLETED
    assert len(apps.slept) == 100


def test_delays_grow_to_a_limit() -> None:
    assert poll_delay(0) == timedelta(seconds=1)
    assert poll_delay(10_000) == timedelta(seconds=30)
    assert retry_delay(0) == timedelta(seconds=1)
    assert retry_delay(10_000) == timedelta(hours=1)
