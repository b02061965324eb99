"""The invariants, and the mutants that break them: one exact replacement each, and the cheapest test that fails for it.

Choose a test that fails by what it saw, not by what it waited for: a timeout is not a kill.
"""

from dataclasses import dataclass
from typing import Final

INVARIANTS: Final = {
    "idempotency": "A repeated call has one effect and the first reply.",
    "epoch fence": "A superseded owner or writer of a conversation commits nothing.",
    "outbox": "An event or a change of tuples leaves with its commit, and not without it.",
    "inbox": "An event that is delivered again has one effect.",
    "jobs": "A run that is delivered again has one effect.",
    "workflow events": "A workflow takes an event once per event id.",
    "attempt fence": "A superseded attempt writes nothing.",
    "resume": "A resumed stream has neither a gap nor a repeat.",
    "recovery": "Work that its host has left gets another attempt.",
    "redaction": "No secret is logged.",
    "object check": "A call that names an object needs a relation to it.",
    "edge identity": "A client cannot name its own user.",
    "refresh tokens": "A refresh token that was used before ends the session.",
    "webhook signatures": "A message under another signature is refused.",
    "outbound guard": "No call reaches a private address.",
    "usage": "The usage of every attempt is counted.",
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A replacement of a text that is in the file exactly once, and the test that must fail with it.

    `test` is a pytest id, or a Go package's folder and a test's name: `services/edge::TestName`.
    """

    name: str
    invariant: str
    file: str
    old: str
    new: str
    test: str

    @property
    def is_go(self) -> bool:
        return self.file.endswith(".go")

    @property
    def is_quick(self) -> bool:
        """Whether its test is a unit test, so that the gate can run it."""
        return self.test.startswith("tests/unit/")


MUTANTS: Final = (
    Mutant(
        "replies of keys are not stored",
        "idempotency",
        "services/kit/http/idempotency.py",
        "        if replay is not None:\n",
        "        if replay is not None and replay.status == 0:\n",
        "tests/component/kit/test_stores.py::test_a_repeat_gets_the_stored_reply",
    ),
    Mutant(
        "a key is used for any body",
        "idempotency",
        "services/kit/http/idempotency.py",
        'found["fingerprint"] != fingerprint',
        "not fingerprint",
        "tests/component/kit/test_stores.py::test_another_body_is_refused_and_another_caller_is_not",
    ),
    Mutant(
        "a key begins any turn",
        "idempotency",
        "services/llm/domain/conversations.py",
        "record.fingerprint != fingerprint(request)",
        "not record.fingerprint",
        "tests/unit/llm/test_domain.py::test_a_key_with_another_request_is_refused",
    ),
    Mutant(
        "a commit ignores the ETag",
        "epoch fence",
        "services/kit/dapr/state.py",
        "mode = WriteMode.MATCH if self._etag else WriteMode.NEW",
        "mode = WriteMode.ANY",
        "tests/unit/kit/test_state.py::test_only_one_of_two_owners_can_commit",
    ),
    Mutant(
        "the statement ignores the ETag",
        "epoch fence",
        "services/kit/dapr/state_postgres.py",
        " AND s.key = w.key AND s.etag = w.old\n",
        " AND s.key = w.key\n",
        "tests/component/kit/test_once.py::test_an_actors_event_is_stored_if_and_only_if_its_state_is",
    ),
    Mutant(
        "a completion of any epoch",
        "epoch fence",
        "services/llm/domain/conversations.py",
        "self.active_turn_id != turn.turn_id or command.epoch != record.epoch",
        "self.active_turn_id != turn.turn_id",
        "tests/unit/llm/test_domain.py::test_a_stale_epoch_ends_nothing",
    ),
    Mutant(
        "events of transactions are dropped",
        "outbox",
        "services/kit/dapr/pubsub/outbox.py",
        'await transaction.execute(text(INSERT), {**values, "event": event.id, "body": event.body})',
        "text(INSERT).bindparams(**values, event=event.id, body=event.body)",
        "tests/component/kit/test_once.py::test_an_event_is_stored_if_and_only_if_its_transaction_commits",
    ),
    Mutant(
        "events of actors are dropped",
        "outbox",
        "services/kit/dapr/state_postgres.py",
        "await self._run(WRITE_AND_PUBLISH, *columns)",
        "await self._run(WRITE, *columns[:5])",
        "tests/component/kit/test_once.py::test_an_actors_event_is_stored_if_and_only_if_its_state_is",
    ),
    Mutant(
        "tuples are written before the commit",
        "outbox",
        "services/auth/service/outbox.py",
        "await self._outbox.add(transaction, writes, deletes)",
        "await self._relations.write(writes, deletes)",
        "tests/component/auth/test_outbox.py::test_what_was_not_committed_is_not_delivered",
    ),
    Mutant(
        "every delivery is admitted",
        "inbox",
        "services/kit/dapr/pubsub/admission.py",
        ".first() is not None",
        ".first() is not transaction",
        "tests/component/kit/test_once.py::test_an_event_that_is_delivered_again_takes_effect_once",
    ),
    Mutant(
        "every delivery of a key is admitted",
        "inbox",
        "services/kit/dapr/pubsub/inbox.py",
        "if envelope.sequence <= last:",
        "if envelope.sequence < last:",
        "tests/component/kit/test_once.py::test_an_event_of_a_key_that_is_delivered_again_takes_effect_once",
    ),
    Mutant(
        "the run of a key is not remembered",
        "jobs",
        "services/kit/dapr/jobs/jobs.py",
        "if run == last_run:",
        "if not run:",
        "tests/component/kit/test_once.py::test_a_run_that_is_delivered_again_or_at_once_takes_effect_once",
    ),
    Mutant(
        "the last tick is not remembered",
        "jobs",
        "services/kit/dapr/jobs/jobs.py",
        "due = job.due.due(now, last)",
        "due = job.due.due(now, None if last else last)",
        "tests/component/kit/test_once.py::test_a_tick_that_is_delivered_again_takes_effect_once",
    ),
    Mutant(
        "event ids are not compared",
        "workflow events",
        "services/kit/dapr/workflows/handles.py",
        'return f"{name}/{event_id}" not in self._seen',
        'return f"{name}/{event_id}" != ""',
        "tests/unit/kit/test_workflow_context.py::test_a_repeated_event_id_and_an_event_of_another_shape_are_skipped",
    ),
    Mutant(
        "appends of any attempt",
        "attempt fence",
        "services/kit/eventlog/statements.py",
        "WHERE s.id = o.id AND s.attempt = o.attempt AND s.closed_at IS NULL",
        "WHERE s.id = o.id AND s.closed_at IS NULL",
        "tests/component/kit/test_eventlog.py::test_an_older_attempt_cannot_write",
    ),
    Mutant(
        "memory begins one event early",
        "resume",
        "services/kit/eventlog/live_tails.py",
        "skipped = seq + 1 - self._recent[0].seq",
        "skipped = seq - self._recent[0].seq",
        "tests/unit/kit/test_resume.py::test_a_tail_continues_after_any_event_or_leaves_it_to_the_table",
    ),
    Mutant(
        "a resumed stream skips an event",
        "resume",
        "services/kit/http/sse.py",
        "log.follow(stream_id, after, idle_seconds=heartbeat)",
        "log.follow(stream_id, after + 1, idle_seconds=heartbeat)",
        "tests/unit/kit/test_resume.py::test_a_stream_begins_with_the_event_after_the_one_that_its_reader_has",
    ),
    Mutant(
        "abandoned work is not claimed",
        "recovery",
        "services/kit/eventlog/statements.py",
        "closed_at IS NULL AND host IS NULL AND due_at <= now()",
        "closed_at IS NULL AND host IS NULL AND due_at IS NULL",
        "tests/component/kit/test_recovery.py::test_released_work_gets_one_more_attempt_and_only_when_it_is_due",
    ),
    Mutant(
        "log events pass as they are",
        "redaction",
        "services/kit/telemetry/redaction.py",
        "return {name: self._field(name, value, 0) for name, value in event.items()}",
        "return event",
        "tests/unit/kit/test_logs.py::test_a_secret_is_never_logged",
    ),
    Mutant(
        "every object is anyone's",
        "object check",
        "services/kit/access/authorization.py",
        "if await self.cache.allows(AccessCheck(caller.user_id, relation, target)):\n            return",
        "await self.cache.allows(AccessCheck(caller.user_id, relation, target))\n        return",
        "tests/unit/kit/test_authorization.py::test_an_invisible_object_is_not_found",
    ),
    Mutant(
        "a route checks the scope alone",
        "object check",
        "services/llm/rpc/access.py",
        "CanView = Annotated[CallerIdentity, Depends(_require(VIEWER))]",
        "CanView = Annotated[CallerIdentity, Depends(SignedIn())]",
        "tests/contract/test_authorization.py::test_a_method_that_names_an_object_requires_a_relation_to_it",
    ),
    Mutant(
        "identity headers pass the edge",
        "edge identity",
        "services/edge/request.go",
        "\t\t\tdelete(header, name)\n",
        "\t\t\t_ = name\n",
        "services/edge::TestAnAbsentClaimSetsNoHeader",
    ),
    Mutant(
        "a used refresh token is valid",
        "refresh tokens",
        "services/auth/domain/sessions.py",
        "        return TokenUse.REUSED\n",
        "        return TokenUse.VALID\n",
        "tests/unit/auth/test_sessions.py::test_the_token_before_works_once_more_for_a_moment",
    ),
    Mutant(
        "a webhook needs any signature",
        "webhook signatures",
        "services/kit/outbound/signatures.py",
        "return any(matches)",
        "return bool(matches)",
        "tests/unit/kit/test_signatures.py::test_either_secret_is_enough_during_a_rotation_and_the_old_one_not_after_it",
    ),
    Mutant(
        "private addresses are public",
        "outbound guard",
        "services/kit/outbound/guard.py",
        "return address.is_global and not (",
        "return address.version > 0 and not (",
        "tests/unit/kit/test_outbound_guard.py::test_no_private_address_is_public",
    ),
    Mutant(
        "the usage of one attempt",
        "usage",
        "services/llm/domain/usage.py",
        "total_tokens=sum(part.total_tokens for part in parts)",
        "total_tokens=max(part.total_tokens for part in parts)",
        "tests/unit/llm/test_domain.py::test_the_usage_of_attempts_adds_up_and_is_marked_as_estimated",
    ),
)
