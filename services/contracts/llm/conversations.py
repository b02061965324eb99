"""Conversations: `yocaso.llm.v1.ConversationService`."""

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
"""A message's text in UTF-8; longer content belongs in a file."""


def _require_bytes(text: str) -> str:
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ValueError(f"should have at most {MAX_TEXT_BYTES} bytes in UTF-8")
    return text


ConversationId = Annotated[str, StringConstraints(pattern=r"^conv_[0-9a-z]{26,32}$")]
Title = Annotated[str, StringConstraints(max_length=200)]
ModelId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT_BYTES),
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
    """Who speaks."""

    SYSTEM = "SYSTEM"
    USER = "USER"
    ASSISTANT = "ASSISTANT"


class Admission(StrEnum):
    """What to do with a message while another turn runs."""

    REJECT = "REJECT"
    ENQUEUE = "ENQUEUE"


class OnDisconnect(StrEnum):
    """What a turn does when the stream that began it is closed by its client."""

    CONTINUE = "CONTINUE"
    CANCEL = "CANCEL"


class Conversation(Message):
    """A conversation, as its owner sees it."""

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
    """One message; `seq` counts from 1 without a gap. `incomplete` marks text that was cut off."""

    message_id: str
    seq: Int64
    role: Role
    text: str
    turn_id: str | None = None
    model: str | None = None
    incomplete: bool = False
    created_at: Timestamp


class CreateConversationRequest(Message):
    """All fields may be absent."""

    title: Title = ""
    model: ModelId | None = None
    system_prompt: Text | None = None
    metadata: Metadata = Field(default_factory=dict)


class GetConversationRequest(Message):
    """Names a conversation."""

    conversation_id: ConversationId


class ListConversationsRequest(Message):
    """A page of the caller's conversations, newest first unless said otherwise."""

    limit: PageSize = 20
    cursor: Cursor | None = None
    order: SortOrder = SortOrder.DESCENDING


class ListConversationsResponse(Message):
    """`nextCursor` is absent on the last page."""

    conversations: list[Conversation]
    next_cursor: str | None = None


class UpdateConversationRequest(Message):
    """Changes the fields that are present; `metadata` is replaced whole."""

    conversation_id: ConversationId
    title: Title | None = None
    model: ModelId | None = None
    system_prompt: Text | None = None
    metadata: Metadata | None = None


class DeleteConversationRequest(Message):
    """Deletes a conversation and its messages; a running turn is cancelled."""

    conversation_id: ConversationId


class ListMessagesRequest(Message):
    """A page of messages by `seq`; a page is also bounded to 1 MiB of text."""

    conversation_id: ConversationId
    limit: PageSize = 50
    cursor: Cursor | None = None
    order: SortOrder = SortOrder.ASCENDING


class ListMessagesResponse(Message):
    """`nextCursor` is absent on the last page."""

    messages: list[ChatMessage]
    next_cursor: str | None = None


class AppendMessageRequest(Message):
    """Stores a message without asking the model."""

    conversation_id: ConversationId
    role: Role = Role.USER
    text: Text


class AppendMessageResponse(Message):
    """The message as stored."""

    message: ChatMessage


class SendMessageRequest(GenerationOptions):
    """Adds a user message and asks the model to answer. Bounds: 1 ≤ `maxOutputTokens` ≤ 32,768."""

    conversation_id: ConversationId
    text: Text
    model: ModelId | None = None
    admission: Admission = Admission.REJECT
    on_disconnect: OnDisconnect = OnDisconnect.CONTINUE


class SendMessageResponse(Message):
    """The finished turn and its answer; `message` is absent when no text was produced."""

    turn: Turn
    message: ChatMessage | None = None


class GetTurnRequest(Message):
    """Names a turn of a conversation."""

    conversation_id: ConversationId
    turn_id: TurnId


class CancelTurnRequest(Message):
    """Names a turn of a conversation; one that has ended is answered as it is."""

    conversation_id: ConversationId
    turn_id: TurnId


class ListEventsRequest(Message):
    """Events of a turn after a sequence number; waits up to `waitSeconds` for the first when there is none."""

    conversation_id: ConversationId
    turn_id: TurnId
    after: Annotated[Int64, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 200
    wait_seconds: Annotated[int, Field(ge=0, le=60)] = 0


class ListEventsResponse(Message):
    """`closed` says that the terminal event is among these or before them: nothing more will come."""

    events: list[Event]
    closed: bool


class StreamEventsRequest(Message):
    """Follows the events of a turn after a sequence number; `Last-Event-ID` wins over `after`."""

    conversation_id: ConversationId
    turn_id: TurnId
    after: Annotated[Int64, Field(ge=0)] = 0


_COMMON = (ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAUTHENTICATED, ErrorCode.UNAVAILABLE)
_NAMED = (*_COMMON, ErrorCode.NOT_FOUND, ErrorCode.PERMISSION_DENIED)
_TURN = (
    *_NAMED,
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
    raises=(*_COMMON, LlmErrorCode.MODEL_INVALID, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    idempotent=True,
    scope=CONVERSATIONS_WRITE,
)
GET_CONVERSATION: Final = CONVERSATION_SERVICE.unary(
    "GetConversation",
    GetConversationRequest,
    Conversation,
    "Read a conversation",
    raises=_NAMED,
    scope=CONVERSATIONS_READ,
)
LIST_CONVERSATIONS: Final = CONVERSATION_SERVICE.unary(
    "ListConversations",
    ListConversationsRequest,
    ListConversationsResponse,
    "List the caller's conversations",
    raises=_COMMON,
    scope=CONVERSATIONS_READ,
)
UPDATE_CONVERSATION: Final = CONVERSATION_SERVICE.unary(
    "UpdateConversation",
    UpdateConversationRequest,
    Conversation,
    "Change a conversation's title, model, system prompt or metadata",
    raises=(*_NAMED, LlmErrorCode.MODEL_INVALID, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    idempotent=True,
    scope=CONVERSATIONS_WRITE,
)
DELETE_CONVERSATION: Final = CONVERSATION_SERVICE.unary(
    "DeleteConversation",
    DeleteConversationRequest,
    Empty,
    "Delete a conversation with its messages",
    raises=_NAMED,
    idempotent=True,
    scope=CONVERSATIONS_WRITE,
)
LIST_MESSAGES: Final = CONVERSATION_SERVICE.unary(
    "ListMessages",
    ListMessagesRequest,
    ListMessagesResponse,
    "List messages",
    raises=_NAMED,
    scope=CONVERSATIONS_READ,
)
APPEND_MESSAGE: Final = CONVERSATION_SERVICE.unary(
    "AppendMessage",
    AppendMessageRequest,
    AppendMessageResponse,
    "Store a message without asking the model",
    raises=(*_NAMED, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    idempotent=True,
    scope=CONVERSATIONS_WRITE,
)
SEND_MESSAGE: Final = CONVERSATION_SERVICE.unary(
    "SendMessage",
    SendMessageRequest,
    SendMessageResponse,
    "Send a message and wait for the answer",
    raises=(*_TURN, ErrorCode.DEADLINE_EXCEEDED),
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
    raises=_TURN,
    idempotent=True,
    timeout_seconds=660,
    scope=CONVERSATIONS_WRITE,
)
GET_TURN: Final = CONVERSATION_SERVICE.unary(
    "GetTurn", GetTurnRequest, Turn, "Read a turn", raises=_NAMED, scope=CONVERSATIONS_READ
)
CANCEL_TURN: Final = CONVERSATION_SERVICE.unary(
    "CancelTurn",
    CancelTurnRequest,
    Turn,
    "Cancel a turn; its partial text is kept",
    raises=_NAMED,
    idempotent=True,
    completes=True,
    scope=CONVERSATIONS_WRITE,
)
LIST_EVENTS: Final = CONVERSATION_SERVICE.unary(
    "ListEvents",
    ListEventsRequest,
    ListEventsResponse,
    "List a turn's events, with long poll",
    raises=(*_NAMED, ErrorCode.OUT_OF_RANGE),
    timeout_seconds=75,
    waits=True,
    scope=CONVERSATIONS_READ,
)
STREAM_EVENTS: Final = CONVERSATION_SERVICE.stream(
    "StreamEvents",
    StreamEventsRequest,
    Event,
    "Follow a turn's events from any point",
    raises=(*_NAMED, ErrorCode.OUT_OF_RANGE),
    timeout_seconds=660,
    scope=CONVERSATIONS_READ,
)
