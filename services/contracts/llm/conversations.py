"""Conversations, messages and turns: `yocaso.llm.v1.ConversationService`."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from services.contracts.events import Event
from services.contracts.llm.errors import LlmErrorCode
from services.contracts.llm.turns import GenerationOptions, Turn, TurnId
from services.contracts.paging import Cursor, PageSize, SortOrder
from services.kit.contract import Empty, Int64, Message, RpcService, Timestamp
from services.kit.errors import ErrorCode

CONVERSATIONS_READ: Final = "conversations:read"
CONVERSATIONS_WRITE: Final = "conversations:write"

MAX_TEXT_BYTES: Final = 65_536
"""Maximum size of a message's text in UTF-8."""


def _require_bytes(text: str) -> str:
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ValueError(f"should have at most {MAX_TEXT_BYTES} bytes in UTF-8")
    return text


ConversationId = Annotated[
    str, Field(pattern=r"^conv_[0-9a-z]{26,32}$", examples=["conv_01k9x2m4q7r8s5t6v0w1y2z3a4"])
]
Title = Annotated[str, StringConstraints(max_length=200)]
ModelId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT_BYTES),
    Field(examples=["Which museums are open on Monday?"]),
    AfterValidator(_require_bytes),
]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]


class Role(StrEnum):
    """Author of a message."""

    SYSTEM = "SYSTEM"
    USER = "USER"
    ASSISTANT = "ASSISTANT"


class Admission(StrEnum):
    """While another turn runs, REJECT fails with TURN_IN_PROGRESS and ENQUEUE waits for its end."""

    REJECT = "REJECT"
    ENQUEUE = "ENQUEUE"


class OnDisconnect(StrEnum):
    """Whether closing the stream that began a turn leaves the turn running or cancels it."""

    CONTINUE = "CONTINUE"
    CANCEL = "CANCEL"


class Conversation(Message):
    """A conversation; `activeTurnId` is the running turn, if any."""

    conversation_id: str
    title: str
    model: str | None = None
    system_prompt: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    message_count: Int64
    active_turn_id: str | None = None
    created_at: Timestamp
    updated_at: Timestamp


class ChatMessage(Message):
    """One message; `seq` counts from 1 without a gap, `incomplete` marks truncated text."""

    message_id: str
    seq: Int64
    role: Role
    text: str
    turn_id: str | None = None
    model: str | None = None
    incomplete: bool = False
    created_at: Timestamp


class CreateConversationRequest(Message):
    """Creates a conversation; every field is optional."""

    title: Title = ""
    model: ModelId | None = None
    system_prompt: Text | None = None
    metadata: Metadata = Field(default_factory=dict)


class GetConversationRequest(Message):
    """Identifies a conversation."""

    conversation_id: ConversationId


class ListConversationsRequest(Message):
    """Lists the caller's conversations by creation, newest first by default."""

    limit: PageSize = 20
    cursor: Cursor | None = None
    order: SortOrder = SortOrder.DESCENDING


class ListConversationsResponse(Message):
    """`nextCursor` is absent on the last page."""

    conversations: list[Conversation]
    next_cursor: str | None = None


class UpdateConversationRequest(Message):
    """Changes the fields that are present: an explicit null clears a field, `metadata` is replaced as a whole."""

    conversation_id: ConversationId
    title: Title | None = None
    model: ModelId | None = None
    system_prompt: Text | None = None
    metadata: Metadata | None = None


class DeleteConversationRequest(Message):
    """Deletes a conversation and its messages; a running turn is cancelled."""

    conversation_id: ConversationId


class ListMessagesRequest(Message):
    """Lists messages by `seq`; a page also ends at 1 MiB."""

    conversation_id: ConversationId
    limit: PageSize = 50
    cursor: Cursor | None = None
    order: SortOrder = SortOrder.ASCENDING


class ListMessagesResponse(Message):
    """`nextCursor` is absent on the last page."""

    messages: list[ChatMessage]
    next_cursor: str | None = None


class AppendMessageRequest(Message):
    """Stores a message without calling the model."""

    conversation_id: ConversationId
    role: Role = Role.USER
    text: Text


class AppendMessageResponse(Message):
    """The stored message."""

    message: ChatMessage


class SendMessageRequest(GenerationOptions):
    """Adds a user message and generates an answer. `model` and the options default to the platform's settings."""

    conversation_id: ConversationId
    text: Text
    model: ModelId | None = None
    admission: Admission = Admission.REJECT
    on_disconnect: OnDisconnect = OnDisconnect.CONTINUE


class SendMessageResponse(Message):
    """The ended turn and its answer; `message` is absent if there is no text."""

    turn: Turn
    message: ChatMessage | None = None


class GetTurnRequest(Message):
    """Identifies a turn of a conversation."""

    conversation_id: ConversationId
    turn_id: TurnId


class CancelTurnRequest(Message):
    """Cancels a turn; an ended turn is returned unchanged."""

    conversation_id: ConversationId
    turn_id: TurnId


class ListEventsRequest(Message):
    """Lists a turn's events with `seq` > `after`; waits up to `waitSeconds` if there are none yet."""

    conversation_id: ConversationId
    turn_id: TurnId
    after: Annotated[Int64, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 200
    wait_seconds: Annotated[int, Field(ge=0, le=60)] = 0


class ListEventsResponse(Message):
    """`closed`: the terminal event is among these or before them, so no event follows."""

    events: list[Event]
    closed: bool


class StreamEventsRequest(Message):
    """Streams a turn's events with `seq` > `after`; `Last-Event-ID` overrides `after`."""

    conversation_id: ConversationId
    turn_id: TurnId
    after: Annotated[Int64, Field(ge=0)] = 0


_COMMON_ERRORS = (ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAUTHENTICATED, ErrorCode.UNAVAILABLE)
_OBJECT_ERRORS = (*_COMMON_ERRORS, ErrorCode.NOT_FOUND, ErrorCode.PERMISSION_DENIED)
_TURN_ERRORS = (
    *_OBJECT_ERRORS,
    LlmErrorCode.TURN_IN_PROGRESS,
    LlmErrorCode.MODEL_INVALID,
    ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ErrorCode.QUOTA_EXCEEDED,
)


CONVERSATION_SERVICE: Final = RpcService(
    "yocaso.llm.v1.ConversationService", "Conversations with durable, resumable, streamed answers."
)
CREATE_CONVERSATION: Final = CONVERSATION_SERVICE.unary(
    "CreateConversation",
    CreateConversationRequest,
    Conversation,
    "Create a conversation",
    raises=(*_COMMON_ERRORS, LlmErrorCode.MODEL_INVALID, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    idempotent=True,
    scope=CONVERSATIONS_WRITE,
)
GET_CONVERSATION: Final = CONVERSATION_SERVICE.unary(
    "GetConversation",
    GetConversationRequest,
    Conversation,
    "Read a conversation",
    raises=_OBJECT_ERRORS,
    scope=CONVERSATIONS_READ,
)
LIST_CONVERSATIONS: Final = CONVERSATION_SERVICE.unary(
    "ListConversations",
    ListConversationsRequest,
    ListConversationsResponse,
    "List the caller's conversations",
    raises=_COMMON_ERRORS,
    scope=CONVERSATIONS_READ,
)
UPDATE_CONVERSATION: Final = CONVERSATION_SERVICE.unary(
    "UpdateConversation",
    UpdateConversationRequest,
    Conversation,
    "Change a conversation's title, model, system prompt or metadata",
    raises=(*_OBJECT_ERRORS, LlmErrorCode.MODEL_INVALID, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    idempotent=True,
    scope=CONVERSATIONS_WRITE,
)
DELETE_CONVERSATION: Final = CONVERSATION_SERVICE.unary(
    "DeleteConversation",
    DeleteConversationRequest,
    Empty,
    "Delete a conversation and its messages",
    raises=_OBJECT_ERRORS,
    idempotent=True,
    scope=CONVERSATIONS_WRITE,
)
LIST_MESSAGES: Final = CONVERSATION_SERVICE.unary(
    "ListMessages",
    ListMessagesRequest,
    ListMessagesResponse,
    "List messages",
    raises=_OBJECT_ERRORS,
    scope=CONVERSATIONS_READ,
)
APPEND_MESSAGE: Final = CONVERSATION_SERVICE.unary(
    "AppendMessage",
    AppendMessageRequest,
    AppendMessageResponse,
    "Store a message without calling the model",
    raises=(*_OBJECT_ERRORS, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    idempotent=True,
    scope=CONVERSATIONS_WRITE,
)
SEND_MESSAGE: Final = CONVERSATION_SERVICE.unary(
    "SendMessage",
    SendMessageRequest,
    SendMessageResponse,
    "Send a message and wait for the answer",
    raises=(*_TURN_ERRORS, ErrorCode.DEADLINE_EXCEEDED),
    idempotent=True,
    timeout_seconds=140,
    waits=True,
    scope=CONVERSATIONS_WRITE,
)
STREAM_MESSAGE: Final = CONVERSATION_SERVICE.stream(
    "StreamMessage",
    SendMessageRequest,
    Event,
    "Send a message and stream the answer",
    raises=_TURN_ERRORS,
    idempotent=True,
    timeout_seconds=660,
    scope=CONVERSATIONS_WRITE,
)
GET_TURN: Final = CONVERSATION_SERVICE.unary(
    "GetTurn", GetTurnRequest, Turn, "Read a turn", raises=_OBJECT_ERRORS, scope=CONVERSATIONS_READ
)
CANCEL_TURN: Final = CONVERSATION_SERVICE.unary(
    "CancelTurn",
    CancelTurnRequest,
    Turn,
    "Cancel a turn; its partial text is kept",
    raises=_OBJECT_ERRORS,
    idempotent=True,
    completes=True,
    scope=CONVERSATIONS_WRITE,
)
LIST_EVENTS: Final = CONVERSATION_SERVICE.unary(
    "ListEvents",
    ListEventsRequest,
    ListEventsResponse,
    "List a turn's events, with long polling",
    raises=(*_OBJECT_ERRORS, ErrorCode.OUT_OF_RANGE),
    timeout_seconds=75,
    waits=True,
    scope=CONVERSATIONS_READ,
)
STREAM_EVENTS: Final = CONVERSATION_SERVICE.stream(
    "StreamEvents",
    StreamEventsRequest,
    Event,
    "Stream a turn's events from any seq",
    raises=(*_OBJECT_ERRORS, ErrorCode.OUT_OF_RANGE),
    timeout_seconds=660,
    scope=CONVERSATIONS_READ,
)
