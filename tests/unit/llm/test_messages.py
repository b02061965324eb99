"""The memory of recent messages is bounded for the whole process."""

from datetime import UTC, datetime

from services.contracts.llm.conversations import ChatMessage, Role
from services.llm.actors.messages import OBJECT_BYTES, RecentMessages
from services.llm.domain import CONTEXT_MESSAGES
from tests.requirements import requirement

AT = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = "x" * 500
ROOM = 4 * (OBJECT_BYTES + len(TEXT))


def messages(count: int) -> dict[int, ChatMessage]:
    return {
        seq: ChatMessage(message_id=f"m{seq}", seq=seq, role=Role.USER, text=TEXT, created_at=AT)
        for seq in range(1, count + 1)
    }


@requirement("conversations:memory")
def test_what_was_used_longest_ago_goes_first() -> None:
    recent = RecentMessages(ROOM)
    recent.keep("a", messages(2))
    recent.keep("b", messages(2))
    recent.keep("a", messages(2))
    recent.keep("c", messages(1))
    assert [sorted(recent.of(name)) for name in "abc"] == [[1, 2], [], [1]]


@requirement("conversations:memory")
def test_a_conversation_that_grew_or_left_is_counted_once() -> None:
    recent = RecentMessages(ROOM)
    for count in (1, 2, 3, 4):
        recent.keep("a", messages(count))
    assert len(recent.of("a")) == 4
    recent.drop("a")
    recent.drop("a")
    recent.keep("b", messages(4))
    assert len(recent.of("b")) == 4


@requirement("conversations:memory")
def test_what_no_room_is_for_is_not_kept() -> None:
    recent = RecentMessages(ROOM)
    recent.keep("a", messages(5))
    assert recent.of("a") == {}


@requirement("conversations:memory")
def test_of_a_conversation_that_grows_the_newest_stay() -> None:
    recent = RecentMessages((CONTEXT_MESSAGES + 1) * (OBJECT_BYTES + len(TEXT)))
    grown = messages(3 * CONTEXT_MESSAGES)
    for message in grown.values():
        recent.add("a", [message])
    assert list(recent.of("a")) == [*grown][-CONTEXT_MESSAGES:]
    assert not recent.has_id("a", f"m{2 * CONTEXT_MESSAGES}")
    assert recent.has_id("a", f"m{2 * CONTEXT_MESSAGES + 1}")
    recent.add("b", [grown[1]])
    assert len(recent.of("a")) == CONTEXT_MESSAGES
    recent.add("b", [grown[2]])
    assert [*recent.of("a"), *recent.of("b")] == [1, 2]
