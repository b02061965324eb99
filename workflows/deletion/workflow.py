"""Erases an account. Replayed from the top on every event: no clock, no random, no I/O."""

from collections.abc import Generator, Sequence
from typing import Any

from services.contracts.apps import ERASERS
from services.contracts.auth.accounts import (
    DELETE_ACCOUNT_WORKFLOW,
    ERASE_APP_WORKFLOW,
    RECORD_ERASURE,
    AccountDeletion,
    DeleteAccountInput,
    EraseAppInput,
    RecordErasureInput,
)
from services.contracts.erasure import EraseUserInput, eraser_of
from services.kit.dapr.workflows import ActivityFailed, Failed, WorkflowContext, workflow
from workflows.deletion.policy import STEPS_PER_RUN, poll_delay, retry_delay


@workflow(DELETE_ACCOUNT_WORKFLOW)
def delete_account(
    ctx: WorkflowContext, account: DeleteAccountInput
) -> Generator[Any, Any, AccountDeletion]:
    """Erase all apps but auth in parallel, then auth, then complete the receipt."""
    *others, last = (eraser.app_id for eraser in ERASERS)
    for apps in (others, [last]):
        yield from _erase(ctx, account, apps)
    completion = RecordErasureInput(deletion_id=account.deletion_id)
    failures = 0
    while True:
        try:
            return (yield from ctx.call(RECORD_ERASURE, completion))
        except ActivityFailed:
            yield from ctx.sleep(retry_delay(failures))
            failures += 1


@workflow(ERASE_APP_WORKFLOW)
def erase_app(ctx: WorkflowContext, part: EraseAppInput) -> Generator[Any, Any, AccountDeletion]:
    """Count an app's objects, erase until done, record the counts in the receipt; each step until it succeeds."""
    for _ in range(STEPS_PER_RUN):
        try:
            if part.found is not None and part.erased:
                record = RecordErasureInput(
                    deletion_id=part.deletion_id, app=part.app, removed=part.found
                )
                return (yield from ctx.call(RECORD_ERASURE, record))
            part = yield from _advance(ctx, part)
        except ActivityFailed:
            yield from ctx.sleep(retry_delay(part.failures))
            part = part.model_copy(update={"failures": part.failures + 1})
    return (yield from ctx.continue_as_new(part))


def _advance(ctx: WorkflowContext, part: EraseAppInput) -> Generator[Any, Any, EraseAppInput]:
    """Count, or erase once."""
    request = EraseUserInput(
        user_id=part.user_id, deletion_id=part.deletion_id, count_only=part.found is None
    )
    erased = yield from ctx.call(eraser_of(part.app), request)
    if part.found is None:
        return part.model_copy(update={"found": erased.found, "failures": 0})
    if erased.done:
        return part.model_copy(update={"erased": True, "failures": 0})
    yield from ctx.sleep(poll_delay(part.polls))
    return part.model_copy(update={"polls": part.polls + 1, "failures": 0})


def _erase(
    ctx: WorkflowContext, account: DeleteAccountInput, apps: Sequence[str]
) -> Generator[Any, Any, None]:
    """Erase these apps, each by a child. A failed child is a defect: auth starts the whole workflow again."""
    parts = [EraseAppInput(**account.model_dump(), app=app) for app in apps]
    erasures = [ctx.begin_child(ERASE_APP_WORKFLOW, part, key=part.app) for part in parts]
    for outcome in (yield from ctx.when_all(erasures)):
        if isinstance(outcome, Failed):
            raise outcome.error
