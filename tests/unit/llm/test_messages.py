"""The cache of recent messages is bounded for the whole process."""

from datetime import UTC, datetime

from services.contracts.llm.conversations import ChatMessage, Role
from services.llm.actors.messages import OBJECT_BYTES, MessageCache
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
def test_the_least_recently_used_conversation_is_evicted_first() -> None:
    cache = MessageCache(ROOM)
    cache.replace("a", messages(2))
    cache.replace("b", messages(2))
    cache.replace("a", messages(2))
    cache.replace("c", messages(1))
    assert [sorted(cache.get(name)) for name in "abc"] == [[1, 2], [], [1]]


@requirement("conversations:memory")
def test_the_size_of_a_conversation_that_grew_or_left_is_counted_once() -> None:
    cache = MessageCache(ROOM)
    for count in (1, 2, 3, 4):
        cache.replace("a", messages(count))
    assert len(cache.get("a")) == 4
    cache.discard("a")
    cache.discard("a")
    cache.replace("b", messages(4))
    assert len(cache.get("b")) == 4


@requirement("conversations:memory")
def test_messages_over_the_limit_are_not_cached() -> None:
    cache = MessageCache(ROOM)
    cache.replace("a", messages(5))
    assert cache.get("a") == {}


@requirement("conversations:memory")
def test_the_newest_messages_of_a_growing_conversation_stay() -> None:
    cache = MessageCache((CONTEXT_MESSAGES + 1) * (OBJECT_BYTES + len(TEXT)))
    grown = messages(3 * CONTEXT_MESSAGES)
    for message in grown.values():
        cache.append("a", [message])
    assert list(cache.get("a")) == [*grown][-CONTEXT_MESSAGES:]
    assert not cache.has_id("a", f"m{2 * CONTEXT_MESSAGES}")
    assert cache.has_id("a", f"m{2 * CONTEXT_MESSAGES + 1}")
    cache.append("b", [grown[1]])
    assert len(cache.get("a")) == CONTEXT_MESSAGES
    cache.append("b", [grown[2]])
    assert [*cache.get("a"), *cache.get("b")] == [1, 2]
