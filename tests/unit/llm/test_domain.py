"""State and rules of conversations and turns."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.contracts.events import EventType
from services.contracts.llm.conversations import (
    Admission,
    ChatMessage,
    CreateConversationRequest,
    Role,
    SendMessageRequest,
    UpdateConversationRequest,
)
from services.contracts.llm.errors import LlmErrorCode
from services.contracts.llm.turns import MAX_TURN_TIME, Turn, TurnStatus, Usage
from services.kit.errors import AnyErrorCode, ErrorCode, RpcError
from services.llm.domain import (
    CONTEXT_CHARS,
    MAX_QUEUE,
    OVERDUE_GRACE,
    RECONCILE_AFTER,
    ConversationState,
    PendingCreation,
    TurnRecord,
    context_window,
    conversation_object,
    delta_text,
    estimate_usage,
    owed_charge,
    request_cancel,
    require_same_request,
    sum_usage,
    terminal_event,
)
from services.llm.domain.commands import CompleteTurnCommand, CreateConversationCommand
from tests.requirements import requirement

AT = datetime(2026, 1, 1, tzinfo=UTC)
ID = "conv_" + "0" * 32


def a_conversation(**fields: object) -> ConversationState:
    request = CreateConversationRequest.model_validate({"title": "First", **fields})
    command = CreateConversationCommand(
        user_id="alice", conversation_id=ID, position=1, request=request
    )
    return ConversationState.create(command, AT)


def a_request(text: str = "hello", admission: Admission = Admission.REJECT) -> SendMessageRequest:
    return SendMessageRequest(conversation_id=ID, text=text, admission=admission)


def a_running_turn(state: ConversationState, turn_id: str = "turn_1") -> TurnRecord:
    record = state.admit(turn_id, "model", a_request(), AT)
    return state.begin(record, "msg_1", AT)[0]


def a_completion(record: TurnRecord, status: TurnStatus, text: str = "hi") -> CompleteTurnCommand:
    return CompleteTurnCommand(
        turn_id=record.turn.turn_id, epoch=record.epoch, status=status, attempts=1, text=text
    )


def code_of(call: object, *args: object) -> AnyErrorCode:
    with pytest.raises(RpcError) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.code


def test_only_the_owner_finds_a_conversation() -> None:
    state = a_conversation()
    state.require_owner("alice")
    assert code_of(state.require_owner, "bob") is ErrorCode.NOT_FOUND


def test_the_view_has_the_current_state() -> None:
    state = a_conversation(metadata={"a": "1"})
    a_running_turn(state)
    seen = state.view()
    assert (seen.conversation_id, seen.title, seen.metadata) == (ID, "First", {"a": "1"})
    assert (seen.message_count, seen.active_turn_id) == (1, "turn_1")


def test_an_update_changes_only_fields_in_the_request() -> None:
    state = a_conversation(metadata={"a": "1"}, model="one")
    state.update(UpdateConversationRequest(conversation_id=ID, title="Second"), AT)
    assert (state.title, state.metadata, state.model) == ("Second", {"a": "1"}, "one")


def test_an_update_to_null_clears() -> None:
    state = a_conversation(metadata={"a": "1"}, model="one")
    cleared = {"conversationId": ID, "title": None, "metadata": None, "model": None}
    state.update(UpdateConversationRequest.model_validate(cleared), AT)
    assert (state.title, state.metadata, state.model) == ("", {}, None)


def test_deletion_hides_a_conversation_and_cancels_its_turns() -> None:
    state = a_conversation()
    a_running_turn(state)
    state.admit("turn_2", "model", a_request(admission=Admission.ENQUEUE), AT)
    assert state.delete(AT) == ["turn_1", "turn_2"]
    assert code_of(state.require_owner, "alice") is ErrorCode.NOT_FOUND


def test_a_second_turn_is_refused_unless_it_may_be_queued() -> None:
    state = a_conversation()
    a_running_turn(state)
    assert code_of(state.admit, "turn_2", "model", a_request(), AT) is LlmErrorCode.TURN_IN_PROGRESS
    waiting = state.admit("turn_2", "model", a_request(admission=Admission.ENQUEUE), AT)
    assert waiting.turn.status is TurnStatus.QUEUED
    assert state.queue == ["turn_2"]


def test_the_queue_is_bounded() -> None:
    state = a_conversation()
    a_running_turn(state)
    queued = a_request(admission=Admission.ENQUEUE)
    for number in range(MAX_QUEUE):
        state.admit(f"turn_q{number}", "model", queued, AT)
    assert code_of(state.admit, "turn_more", "model", queued, AT) is ErrorCode.QUOTA_EXCEEDED


@pytest.mark.parametrize(
    ("status", "finish", "incomplete"),
    [
        (TurnStatus.COMPLETED, "stop", False),
        (TurnStatus.COMPLETED, "length", True),
        (TurnStatus.FAILED, None, True),
        (TurnStatus.CANCELLED, None, True),
    ],
)
def test_shown_text_is_kept_and_marked(
    status: TurnStatus, finish: str | None, incomplete: bool
) -> None:
    state = a_conversation()
    record = a_running_turn(state)
    command = a_completion(record, status).model_copy(update={"finish_reason": finish})
    ended, message = state.complete(record, command, "msg_2", AT)
    assert message is not None
    assert (message.text, message.incomplete, message.model) == ("hi", incomplete, "model")
    assert ended.turn.assistant_message_seq == message.seq == 2
    assert state.active_turn_id is None


def test_a_turn_without_text_leaves_no_message() -> None:
    state = a_conversation()
    record = a_running_turn(state)
    ended, message = state.complete(record, a_completion(record, TurnStatus.FAILED, ""), "m", AT)
    assert message is None
    assert ended.turn.assistant_message_seq is None


def test_a_stale_epoch_ends_nothing() -> None:
    state = a_conversation()
    record = a_running_turn(state)
    stale = a_completion(record, TurnStatus.COMPLETED).model_copy(
        update={"epoch": record.epoch - 1}
    )
    assert code_of(state.complete, record, stale, "m", AT) is ErrorCode.ABORTED
    other = a_completion(record, TurnStatus.COMPLETED)
    state.active_turn_id = "turn_other"
    assert code_of(state.complete, record, other, "m", AT) is ErrorCode.ABORTED


def test_a_cancel_has_a_receipt_with_the_time_of_the_first_request() -> None:
    state = a_conversation()
    asked = request_cancel(a_running_turn(state), AT)
    again = request_cancel(asked, AT + timedelta(seconds=5))
    assert again.turn.cancel is not None
    assert again.turn.cancel.requested_at == AT
    seen = AT + timedelta(seconds=1)
    command = a_completion(asked, TurnStatus.CANCELLED).model_copy(
        update={
            "cancel_acknowledged_at": seen,
            "upstream_closed_at": seen,
            "tokens_after_cancel": 2,
        }
    )
    ended, _ = state.complete(asked, command, "m", seen)
    assert ended.turn.cancel is not None
    assert ended.turn.cancel.requested_at == AT
    assert ended.turn.cancel.acknowledged_at == ended.turn.cancel.upstream_closed_at == seen
    assert ended.turn.cancel.tokens_after_cancel == 2


def test_a_cancel_by_deletion_has_a_receipt_too() -> None:
    state = a_conversation()
    record = a_running_turn(state)
    ended, _ = state.complete(record, a_completion(record, TurnStatus.CANCELLED), "m", AT)
    assert ended.turn.cancel is not None
    assert ended.turn.cancel.acknowledged_at == AT


def test_a_cancelled_queued_turn_keeps_its_user_message() -> None:
    state = a_conversation()
    a_running_turn(state)
    waiting = state.admit("turn_2", "model", a_request("later", Admission.ENQUEUE), AT)
    cancelled, message = state.cancel_queued(waiting, "msg_q", AT)
    assert state.queue == []
    assert (message.text, message.role) == ("later", Role.USER)
    assert cancelled.turn.status is TurnStatus.CANCELLED
    assert cancelled.text is None


def test_a_key_with_another_request_is_refused() -> None:
    record = a_conversation().admit("turn_1", "model", a_request("one"), AT)
    require_same_request(record, a_request("one"))
    assert (
        code_of(require_same_request, record, a_request("two")) is ErrorCode.IDEMPOTENCY_KEY_REUSED
    )


def test_the_deadline_counts_from_the_begin_of_the_turn() -> None:
    state = a_conversation()
    waiting = state.admit("turn_1", "model", a_request(), AT)
    assert waiting.deadline == AT + MAX_TURN_TIME
    later = AT + timedelta(minutes=9)
    assert state.begin(waiting, "m", later)[0].deadline == later + MAX_TURN_TIME


def test_the_context_has_the_newest_messages_that_fit_and_always_the_last() -> None:
    def message(seq: int, size: int) -> ChatMessage:
        return ChatMessage(
            message_id=f"m{seq}", seq=seq, role=Role.USER, text="x" * size, created_at=AT
        )

    small = [message(seq, 10) for seq in range(1, 4)]
    assert context_window(small) == small
    assert context_window([message(1, CONTEXT_CHARS), message(2, 10)]) == [message(2, 10)]
    assert context_window([message(1, CONTEXT_CHARS + 1)]) == [message(1, CONTEXT_CHARS + 1)]
    assert context_window([]) == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (TurnStatus.COMPLETED, EventType.RUN_COMPLETED),
        (TurnStatus.CANCELLED, EventType.RUN_CANCELLED),
        (TurnStatus.FAILED, EventType.RUN_FAILED),
    ],
)
def test_each_final_status_has_its_terminal_event(status: TurnStatus, kind: EventType) -> None:
    turn = Turn(turn_id="turn_1", conversation_id=ID, status=status, model="m", created_at=AT)
    found, data = terminal_event(turn)
    assert found is kind
    assert "messageSeq" not in data
    answered = turn.model_copy(update={"assistant_message_seq": 7})
    assert terminal_event(answered)[1]["messageSeq"] == "7"


def test_a_failure_without_a_reason_is_internal() -> None:
    turn = Turn(
        turn_id="turn_1", conversation_id=ID, status=TurnStatus.FAILED, model="m", created_at=AT
    )
    assert terminal_event(turn)[1]["error"]["code"] == "INTERNAL"
    failed = turn.model_copy(update={"error": RpcError(ErrorCode.UPSTREAM_ERROR, "no").to_status()})
    assert terminal_event(failed)[1]["error"]["code"] == "UPSTREAM_ERROR"


class Turns(RuleBasedStateMachine):
    """Random sends, ends and cancels: one turn runs, the queue keeps its order, seq has no gap, ends are final."""

    @initialize()
    def begin(self) -> None:
        self.state = a_conversation()
        self.records: dict[str, TurnRecord] = {}
        self.messages: list[ChatMessage] = []
        self.waiting: list[str] = []

    @rule(admission=st.sampled_from(list(Admission)))
    def send(self, admission: Admission) -> None:
        turn_id = f"turn_{len(self.records)}"
        try:
            record = self.state.admit(turn_id, "model", a_request("hi", admission), AT)
        except RpcError:
            assert self.state.active_turn_id is not None
            return
        self.records[turn_id] = record
        if turn_id in self.state.queue:
            self.waiting.append(turn_id)
        else:
            self._run(turn_id)

    @rule(status=st.sampled_from([TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED]))
    def end(self, status: TurnStatus) -> None:
        running = self.state.active_turn_id
        if running is None:
            return
        record = self.records[running]
        ended, message = self.state.complete(record, a_completion(record, status), "m", AT)
        self.records[running] = ended
        if message:
            self.messages.append(message)
        if self.state.queue:
            first, *self.state.queue = self.state.queue
            assert first == self.waiting.pop(0)
            self._run(first)

    @rule()
    def cancel_a_waiting_turn(self) -> None:
        if self.waiting:
            turn_id = self.waiting.pop()
            record, message = self.state.cancel_queued(self.records[turn_id], "m", AT)
            self.records[turn_id] = record
            self.messages.append(message)

    @invariant()
    def at_most_one_turn_runs(self) -> None:
        running = [i for i, r in self.records.items() if r.turn.status is TurnStatus.RUNNING]
        assert running == ([self.state.active_turn_id] if self.state.active_turn_id else [])

    @invariant()
    def messages_have_no_gap(self) -> None:
        assert [message.seq for message in self.messages] == list(range(1, len(self.messages) + 1))

    @invariant()
    def ended_turns_have_an_end(self) -> None:
        for record in self.records.values():
            assert record.turn.status.is_terminal == (record.turn.ended_at is not None)

    def _run(self, turn_id: str) -> None:
        self.records[turn_id], message = self.state.begin(self.records[turn_id], "m", AT)
        self.messages.append(message)


TestTurns = Turns.TestCase


@requirement("turns:usage")
def test_the_usage_of_attempts_adds_up_and_is_marked_as_estimated() -> None:
    counted = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15, cost=0.25)
    cut = estimate_usage(10, 2, price=0.25)
    assert sum_usage([counted, cut]) == Usage(
        prompt_tokens=20,
        completion_tokens=7,
        total_tokens=27,
        cost=3.25,
        estimated=True,
    )
    assert sum_usage([counted]) == counted
    assert sum_usage([]) is None
    assert estimate_usage(1, 1, price=None).cost is None
    assert sum_usage([estimate_usage(1, 1, price=None)]) == estimate_usage(1, 1, price=None)
    assert delta_text('{"text":"é"}') == "é"


@requirement("turns:usage")
def test_a_charge_is_owed_only_for_a_key_and_a_cost() -> None:
    turn = a_running_turn(a_conversation()).turn
    paid = turn.model_copy(update={"usage": Usage(cost=0.5)})
    assert owed_charge(paid, "key_1") == {"keyId": "key_1", "amount": 0.5}
    assert owed_charge(paid, None) is None
    assert owed_charge(turn, "key_1") is None


@requirement("turns:liveness")
def test_an_overdue_turn_fails() -> None:
    state = a_conversation()
    record = a_running_turn(state)
    late = AT + MAX_TURN_TIME + OVERDUE_GRACE
    assert not record.is_overdue(late)
    assert record.is_overdue(late + timedelta(seconds=1))
    ended, message = state.complete(record, record.time_out(), "msg_2", late)
    assert message is None
    assert ended.turn.status is TurnStatus.FAILED
    assert ended.turn.error is not None
    assert ended.turn.error.code is ErrorCode.DEADLINE_EXCEEDED
    assert state.active_turn_id is None


@requirement("conversations:delete-again")
def test_a_deleted_conversation_recognizes_its_owner_without_the_user_id() -> None:
    state = a_conversation()
    assert not state.was_deleted_for("alice")
    state.delete(AT)
    assert not state.is_purged
    state.owner = ""
    assert state.is_purged
    assert state.was_deleted_for("alice")
    assert not state.was_deleted_for("bob")
    assert "alice" not in state.model_dump_json()


def test_an_unfinished_creation_becomes_overdue() -> None:
    request = CreateConversationRequest()
    command = CreateConversationCommand(user_id="alice", conversation_id=ID, request=request)
    pending = PendingCreation(command=command, begun_at=AT)
    assert not pending.is_overdue(AT + RECONCILE_AFTER - timedelta(seconds=1))
    assert pending.is_overdue(AT + RECONCILE_AFTER)


def test_the_object_of_a_conversation_is_its_type_and_id() -> None:
    assert conversation_object(ID) == f"conversation:{ID}"
