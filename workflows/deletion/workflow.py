"""Erases an account. Replayed from the top on every event: no clock, no random, no I/O."""

from collections.abc import Generator
from typing import Any

from services.contracts.apps import ERASERS
from services.contracts.auth.accounts import (
    DELETE_ACCOUNT_WORKFLOW,
    RECORD_ERASURE,
    AccountDeletion,
    DeleteAccountInput,
    RecordErasureInput,
)
from services.contracts.erasure import ErasedUser, EraseUserInput
from services.kit.dapr.workflows import ActivityFailed, WorkflowContext, workflow
from services.kit.references import ActivityRef, I, O
from workflows.deletion.policy import poll_delay, retry_delay


@workflow(DELETE_ACCOUNT_WORKFLOW)
def delete_account(
    ctx: WorkflowContext, account: DeleteAccountInput
) -> Generator[Any, Any, AccountDeletion]:
    """For each app: count its objects, erase until done, record the counts in the receipt."""
    for eraser in ERASERS:
        count = EraseUserInput(**account.model_dump(), count_only=True)
        found = (yield from _retry(ctx, eraser, count)).found
        yield from _erase(ctx, eraser, EraseUserInput(**account.model_dump()))
        part = RecordErasureInput(deletion_id=account.deletion_id, app=eraser.app_id, removed=found)
        yield from _retry(ctx, RECORD_ERASURE, part)
    completion = RecordErasureInput(deletion_id=account.deletion_id)
    return (yield from _retry(ctx, RECORD_ERASURE, completion))


def _erase(
    ctx: WorkflowContext, eraser: ActivityRef[EraseUserInput, ErasedUser], request: EraseUserInput
) -> Generator[Any, Any, None]:
    polls = 0
    while not (yield from _retry(ctx, eraser, request)).done:
        yield from ctx.sleep(poll_delay(polls))
        polls += 1


def _retry(ctx: WorkflowContext, activity: ActivityRef[I, O], value: I) -> Generator[Any, Any, O]:
    """Call an activity until it succeeds."""
    failures = 0
    while True:
        try:
            return (yield from ctx.call(activity, value))
        except ActivityFailed:
            yield from ctx.sleep(retry_delay(failures))
            failures += 1
