"""State and rules of conversations and turns. Pure: time and ids are passed in."""

import hashlib
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, Field

from services.contracts.events import EventType
from services.contracts.llm.conversations import (
    Admission,
    ChatMessage,
    Conversation,
    Role,
    SendMessageRequest,
    UpdateConversationRequest,
)
from services.contracts.llm.errors import LlmErrorCode
from services.contracts.llm.turns import (
    MAX_TURN_TIME,
    CancelReceipt,
    GenerationOptions,
    Turn,
    TurnStatus,
)
from services.kit.contract import Timestamp
from services.kit.errors import ErrorCode, RpcError, internal_error, not_found
from services.llm.domain.commands import CompleteTurnCommand, CreateConversationCommand

CONVERSATION_TYPE: Final = "conversation"
"""Object type in relationship tuples."""
MAX_QUEUE: Final = 8
"""Maximum queued turns per conversation."""
OVERDUE_GRACE: Final = timedelta(seconds=30)
"""After its deadline, how long recovery may end a turn before the conversation fails it."""
RECONCILE_AFTER: Final = timedelta(seconds=20)
"""Age at which an unfinished creation is reconciled."""
CONTEXT_MESSAGES: Final = 40
CONTEXT_CHARS: Final = 48_000
"""Limits of the history sent to the model."""


def conversation_object(conversation_id: str) -> str:
    """The conversation's name in relationship tuples."""
    return f"{CONVERSATION_TYPE}:{conversation_id}"


class TurnRecord(BaseModel):
    """A stored turn. `text` holds the user message while the turn is queued."""

    turn: Turn
    epoch: int = 0
    fingerprint: str
    text: str | None = None
    key_id: str | None = None
    options: GenerationOptions = GenerationOptions()
    began_at: Timestamp | None = None

    @property
    def deadline(self) -> datetime:
        return (self.began_at or self.turn.created_at) + MAX_TURN_TIME

    def is_overdue(self, at: datetime) -> bool:
        """Whether the deadline passed so long ago that recovery has failed to end the turn."""
        return at > self.deadline + OVERDUE_GRACE

    def time_out(self) -> CompleteTurnCommand:
        """The command that fails an overdue turn."""
        error = RpcError(ErrorCode.DEADLINE_EXCEEDED, "The turn exceeded its maximum duration.")
        return CompleteTurnCommand(
            turn_id=self.turn.turn_id,
            epoch=self.epoch,
            attempts=self.turn.attempts,
            status=TurnStatus.FAILED,
            error=error.to_status(),
        )


class ConversationState(BaseModel):
    """A conversation's head, of constant size."""

    conversation_id: str
    owner: str
    position: int = 0
    title: str = ""
    model: str | None = None
    system_prompt: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    last_seq: int = 0
    epoch: int = 0
    active_turn_id: str | None = None
    queue: list[str] = Field(default_factory=list)
    created_at: Timestamp
    updated_at: Timestamp
    deleted: bool = False
    deleted_for: str = ""
    """Digest of the owner at deletion: recognizes the owner without storing the user id."""

    @classmethod
    def create(cls, command: CreateConversationCommand, at: datetime) -> "ConversationState":
        request = command.request
        return cls(
            conversation_id=command.conversation_id,
            owner=command.user_id,
            position=command.position,
            title=request.title,
            model=request.model,
            system_prompt=request.system_prompt,
            metadata=dict(request.metadata),
            created_at=at,
            updated_at=at,
        )

    def require_owner(self, user_id: str) -> None:
        """Raise NOT_FOUND for another user, or if the conversation is deleted."""
        if self.deleted or self.owner != user_id:
            raise not_found("conversation")

    @property
    def is_purged(self) -> bool:
        """Whether only this head is left of a deleted conversation."""
        return self.deleted and not self.owner

    def was_deleted_for(self, user_id: str) -> bool:
        """Whether this user's conversation was deleted: for its owner, a repeated deletion succeeds."""
        return self.deleted and self.deleted_for == _owner_digest(self.conversation_id, user_id)

    def view(self) -> Conversation:
        return Conversation(
            conversation_id=self.conversation_id,
            title=self.title,
            model=self.model,
            system_prompt=self.system_prompt,
            metadata=self.metadata,
            message_count=self.last_seq,
            active_turn_id=self.active_turn_id,
            created_at=self.created_at,
            updated_at=self.updated_at,
        )

    def update(self, request: UpdateConversationRequest, at: datetime) -> None:
        """Set the fields present in the request."""
        for name in request.model_fields_set - {"conversation_id"}:
            setattr(self, name, getattr(request, name))
        self.title = self.title or ""
        self.metadata = self.metadata or {}
        self.updated_at = at

    def delete(self, at: datetime) -> list[str]:
        """Mark deleted, and return the turns to cancel. The head stays, so that a late write cannot recreate it."""
        turn_ids = [turn for turn in (self.active_turn_id, *self.queue) if turn]
        self.title, self.system_prompt, self.metadata = "", None, {}
        self.active_turn_id, self.queue = None, []
        self.epoch += 1
        self.deleted, self.updated_at = True, at
        self.deleted_for = _owner_digest(self.conversation_id, self.owner)
        return turn_ids

    def append(
        self,
        role: Role,
        text: str,
        message_id: str,
        at: datetime,
        *,
        turn: Turn | None = None,
        incomplete: bool = False,
    ) -> ChatMessage:
        """Create the next message."""
        self.last_seq += 1
        self.updated_at = at
        by_model = turn.model if turn and role is Role.ASSISTANT else None
        return ChatMessage(
            message_id=message_id,
            seq=self.last_seq,
            role=role,
            text=text,
            turn_id=turn.turn_id if turn else None,
            model=by_model,
            incomplete=incomplete,
            created_at=at,
        )

    def admit(
        self, turn_id: str, model: str, request: SendMessageRequest, at: datetime
    ) -> TurnRecord:
        """Create a turn; it is queued if another one is running and the request says ENQUEUE.

        Raises:
            RpcError: TURN_IN_PROGRESS under REJECT; QUOTA_EXCEEDED when the queue is full.
        """
        busy = self.active_turn_id is not None
        if busy and request.admission is Admission.REJECT:
            raise RpcError(
                LlmErrorCode.TURN_IN_PROGRESS, "Another turn of this conversation is running."
            )
        if len(self.queue) >= MAX_QUEUE:
            raise RpcError(ErrorCode.QUOTA_EXCEEDED, f"{MAX_QUEUE} turns are queued already.")
        turn = Turn(
            turn_id=turn_id,
            conversation_id=self.conversation_id,
            status=TurnStatus.QUEUED,
            model=model,
            created_at=at,
        )
        if busy:
            self.queue = [*self.queue, turn_id]
        return TurnRecord(
            turn=turn,
            fingerprint=fingerprint(request),
            text=request.text,
            options=request.with_defaults(GenerationOptions()),
        )

    def begin(
        self, record: TurnRecord, message_id: str, at: datetime
    ) -> tuple[TurnRecord, ChatMessage]:
        """Set a turn to running under a new epoch, and append its user message."""
        self.epoch += 1
        self.active_turn_id = record.turn.turn_id
        message = self.append(Role.USER, record.text or "", message_id, at, turn=record.turn)
        turn = record.turn.model_copy(
            update={"status": TurnStatus.RUNNING, "user_message_seq": message.seq}
        )
        running = record.model_copy(
            update={"turn": turn, "epoch": self.epoch, "text": None, "began_at": at}
        )
        return running, message

    def complete(
        self, record: TurnRecord, command: CompleteTurnCommand, message_id: str, at: datetime
    ) -> tuple[TurnRecord, ChatMessage | None]:
        """End the running turn and append the text shown so far, marked incomplete unless the turn completed.

        Raises:
            RpcError: ABORTED if the epoch is stale.
        """
        turn = record.turn
        if self.active_turn_id != turn.turn_id or command.epoch != record.epoch:
            raise RpcError(ErrorCode.ABORTED, "The turn is not the running one.")
        message = None
        if command.text:
            incomplete = (
                command.status is not TurnStatus.COMPLETED or command.finish_reason == "length"
            )
            message = self.append(
                Role.ASSISTANT, command.text, message_id, at, turn=turn, incomplete=incomplete
            )
        self.active_turn_id = None
        self.updated_at = at
        ended = turn.model_copy(
            update={
                "status": command.status,
                "assistant_message_seq": message.seq if message else None,
                "attempts": command.attempts,
                "usage": command.usage,
                "finish_reason": command.finish_reason,
                "error": command.error,
                "cancel": _cancel_receipt(turn, command, at),
                "ended_at": at,
            }
        )
        return record.model_copy(update={"turn": ended}), message

    def cancel_queued(
        self, record: TurnRecord, message_id: str, at: datetime
    ) -> tuple[TurnRecord, ChatMessage]:
        """Cancel a queued turn; its user message is appended."""
        self.queue = [turn for turn in self.queue if turn != record.turn.turn_id]
        message = self.append(Role.USER, record.text or "", message_id, at, turn=record.turn)
        receipt = CancelReceipt(requested_at=at, acknowledged_at=at)
        turn = record.turn.model_copy(
            update={
                "status": TurnStatus.CANCELLED,
                "user_message_seq": message.seq,
                "cancel": receipt,
                "ended_at": at,
            }
        )
        return record.model_copy(update={"turn": turn, "text": None}), message


def _owner_digest(conversation_id: str, user_id: str) -> str:
    return hashlib.sha256(f"{conversation_id}\0{user_id}".encode()).hexdigest()


def request_cancel(record: TurnRecord, at: datetime) -> TurnRecord:
    """Record a cancel request; the first one's time is kept."""
    receipt = record.turn.cancel or CancelReceipt(requested_at=at)
    return record.model_copy(update={"turn": record.turn.model_copy(update={"cancel": receipt})})


def fingerprint(request: SendMessageRequest) -> str:
    """Digest of a request, to detect a reused idempotency key."""
    return hashlib.sha256(request.to_json()).hexdigest()


def require_same_request(record: TurnRecord, request: SendMessageRequest) -> None:
    """Raise IDEMPOTENCY_KEY_REUSED unless the turn began with this request."""
    if record.fingerprint != fingerprint(request):
        raise RpcError(
            ErrorCode.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was used with another request body.",
        )


def context_window(messages: list[ChatMessage]) -> list[ChatMessage]:
    """The newest messages that fit into CONTEXT_CHARS, in order; always the last one."""
    kept: list[ChatMessage] = []
    chars_left = CONTEXT_CHARS
    for message in reversed(messages):
        chars_left -= len(message.text)
        if kept and chars_left < 0:
            break
        kept.append(message)
    return kept[::-1]


def _cancel_receipt(turn: Turn, command: CompleteTurnCommand, at: datetime) -> CancelReceipt | None:
    if command.status is not TurnStatus.CANCELLED:
        return turn.cancel
    return CancelReceipt(
        requested_at=turn.cancel.requested_at if turn.cancel else at,
        acknowledged_at=command.cancel_acknowledged_at or at,
        upstream_closed_at=command.upstream_closed_at,
        tokens_after_cancel=command.tokens_after_cancel,
    )


def owed_charge(turn: Turn, key_id: str | None) -> dict[str, Any] | None:
    """The charge that an ended turn owes to its API key, stored with the stream until it is made."""
    cost = turn.usage.cost if turn.usage else None
    return {"keyId": key_id, "amount": cost} if key_id and cost else None


def terminal_event(turn: Turn) -> tuple[EventType, dict[str, Any]]:
    """Type and data of the event that ends a turn's stream."""
    seq = {"messageSeq": str(turn.assistant_message_seq)} if turn.assistant_message_seq else {}
    if turn.status is TurnStatus.COMPLETED:
        return EventType.RUN_COMPLETED, {"finishReason": turn.finish_reason, **seq}
    if turn.status is TurnStatus.CANCELLED:
        return EventType.RUN_CANCELLED, seq
    error = turn.error or internal_error().to_status()
    failure = error.model_dump(mode="json", by_alias=True, exclude_none=True)
    return EventType.RUN_FAILED, {"error": failure, **seq}


class PendingCreation(BaseModel):
    """A begun creation, whose row is removed once it has finished."""

    command: CreateConversationCommand
    begun_at: Timestamp

    def is_overdue(self, at: datetime) -> bool:
        return at - self.begun_at >= RECONCILE_AFTER


class ConversationIndex(BaseModel):
    """Head of a user's conversation index, of constant size. Up to position `settled` no creation is pending."""

    last_position: int = 0
    settled: int = 0
