"""Erases an account. Replayed from the top at every wake-up: no clock, no random, no I/O."""

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
from workflows.deletion.policy import after_failure, before_next_look


@workflow(DELETE_ACCOUNT_WORKFLOW)
def delete_account(
    ctx: WorkflowContext, account: DeleteAccountInput
) -> Generator[Any, Any, AccountDeletion]:
    """App by app: count, erase until nothing is left, write it into the receipt."""
    for eraser in ERASERS:
        count = EraseUserInput(**account.model_dump(), count_only=True)
        found = (yield from _persist(ctx, eraser, count)).found
        yield from _erase(ctx, eraser, EraseUserInput(**account.model_dump()))
        part = RecordErasureInput(deletion_id=account.deletion_id, app=eraser.app_id, removed=found)
        yield from _persist(ctx, RECORD_ERASURE, part)
    return (
        yield from _persist(
            ctx, RECORD_ERASURE, RecordErasureInput(deletion_id=account.deletion_id)
        )
    )


def _erase(
    ctx: WorkflowContext, eraser: ActivityRef[EraseUserInput, ErasedUser], request: EraseUserInput
) -> Generator[Any, Any, None]:
    looks = 0
    while not (yield from _persist(ctx, eraser, request)).done:
        yield from ctx.sleep(before_next_look(looks))
        looks += 1


def _persist(ctx: WorkflowContext, activity: ActivityRef[I, O], value: I) -> Generator[Any, Any, O]:
    failures = 0
    while True:
        try:
            return (yield from ctx.call(activity, value))
        except ActivityFailed:
            yield from ctx.sleep(after_failure(failures))
            failures += 1
