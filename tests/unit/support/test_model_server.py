"""The scripted model keeps to OpenRouter's wire and to its scripts."""

import email.utils
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.model_server import ModelServer, Script, script_text
from tests.support.model_server.journal import prompts
from tests.support.wait import wait_until

pytestmark = pytest.mark.loopback


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def ask(http: aiohttp.ClientSession, server: ModelServer, text: str, *, stream: bool = True) -> Any:
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}
    return http.post(
        f"{server.base_url}/chat/completions", json=body, headers={"traceparent": "00-t"}
    )


async def chunks_of(http: aiohttp.ClientSession, server: ModelServer, text: str) -> list[Any]:
    async with ask(http, server, text) as response:
        lines = (await response.read()).decode().split("\n")
    found = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [each if each == "[DONE]" else json.loads(each) for each in found]


def text_of(chunks: list[Any]) -> str:
    choices = [choice for chunk in chunks if isinstance(chunk, dict) for choice in chunk["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_a_healthy_stream_ends_with_finish_usage_and_done(
    http: Any, server: ModelServer
) -> None:
    chunks = await chunks_of(http, server, "hello there")
    assert text_of(chunks) == "You said: hello there"
    assert chunks[-3]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["completion_tokens"] == 4
    assert chunks[-2]["usage"]["cost"] > 0
    assert chunks[-1] == "[DONE]"


async def test_the_stream_begins_with_a_processing_comment(http: Any, server: ModelServer) -> None:
    async with ask(http, server, "x") as response:
        assert (await response.read()).startswith(b": OPENROUTER PROCESSING\n\n")
        assert response.content_type == "text/event-stream"


async def test_a_unary_answer_carries_the_same_text_as_a_stream(
    http: Any, server: ModelServer
) -> None:
    said = script_text(tokens=8, unicode=True)
    streamed = text_of(await chunks_of(http, server, said))
    async with ask(http, server, said, stream=False) as response:
        answer = await response.json()
    assert (
        answer["choices"][0]["message"]["content"]
        == streamed
        == Script(tokens=8, unicode=True).answer("")
    )


async def test_terminal_marks_can_be_left_out(http: Any, server: ModelServer) -> None:
    chunks = await chunks_of(
        http, server, script_text(tokens=2, finish=None, usage=False, done=False)
    )
    assert text_of(chunks) == "token0 token1 "
    assert "[DONE]" not in chunks
    assert not any("usage" in chunk or chunk["choices"][0]["finish_reason"] for chunk in chunks)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_cut_breaks_the_body_after_k_tokens(
    http: Any, server: ModelServer, how: str
) -> None:
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
        await chunks_of(http, server, script_text(tokens=5, cut=how, cut_after=2))
    assert (server.journal.entries[0].outcome, server.journal.entries[0].tokens_sent) == ("cut", 2)


async def test_a_client_that_leaves_a_hanging_stream_is_seen_at_once(
    http: Any, server: ModelServer
) -> None:
    async with ask(http, server, script_text(tokens=5, cut="hang", cut_after=2)) as response:
        while b"token1" not in await response.content.readline():
            pass
        assert server.journal.entries[0].client_closed_at is None
        left = time.monotonic()
    entry = server.journal.entries[0]
    await wait_until(lambda: entry.outcome == "client_closed", what="the close", every=0.001)
    assert entry.client_closed_at is not None
    assert left <= entry.client_closed_at <= time.monotonic()


async def test_a_gate_holds_the_stream_until_it_is_released(http: Any, server: ModelServer) -> None:
    async with ask(http, server, script_text(tokens=3, gate="here", gate_after=1)) as response:
        while b"token0" not in await response.content.readline():
            pass
        async with http.get(f"{server.origin}/__gate") as gate:
            assert await gate.json() == {"waiting": [{"name": "here", "number": 1}]}
        assert server.journal.entries[0].tokens_sent == 1
        async with http.post(f"{server.origin}/__gate", json={"release": "here"}):
            rest = await response.read()
    assert b"token2" in rest


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 429, 500, 502, 503, 529])
async def test_an_http_error_has_openrouters_body(
    http: Any, server: ModelServer, status: int
) -> None:
    async with ask(
        http, server, script_text(status=status, metadata={"provider_name": "P"})
    ) as response:
        body = await response.json()
    assert response.status == status
    assert body["error"]["code"] == status
    assert body["error"]["metadata"] == {"provider_name": "P"}


async def test_retry_after_is_sent_in_seconds_or_as_a_date(http: Any, server: ModelServer) -> None:
    async with ask(http, server, script_text(status=429, retry_after="3")) as response:
        assert response.headers["retry-after"] == "3"
    async with ask(http, server, script_text(status=429, retry_after="date:30")) as response:
        date = email.utils.parsedate_to_datetime(response.headers["retry-after"])
    assert 0 < date.timestamp() - time.time() <= 31


async def test_a_request_fails_n_times_and_then_succeeds(http: Any, server: ModelServer) -> None:
    statuses: list[int] = []
    for _ in range(3):
        async with ask(http, server, script_text(status=503, fail_times=2, tokens=1)) as response:
            statuses.append(response.status)
    assert statuses == [503, 503, 200]
    assert [entry.attempt for entry in server.journal.entries] == [1, 2, 3]


async def test_each_attempt_can_have_a_script_of_its_own(http: Any, server: ModelServer) -> None:
    said = script_text(attempts=[{"text": "one"}, {"text": "two"}])
    assert [text_of(await chunks_of(http, server, said)) for _ in range(3)] == ["one", "two", "two"]


async def test_an_error_in_the_middle_of_a_stream_comes_inside_a_200(
    http: Any, server: ModelServer
) -> None:
    chunks = await chunks_of(http, server, script_text(tokens=4, error_after=2, error_code=529))
    assert text_of(chunks) == "token0 token1 "
    assert chunks[-2]["error"]["code"] == 529
    assert chunks[-2]["choices"][0]["finish_reason"] == "error"


async def test_an_error_body_can_come_inside_a_200(http: Any, server: ModelServer) -> None:
    async with ask(http, server, script_text(error_body=True, message="overloaded")) as response:
        assert response.status == 200
        assert (await response.json())["error"] == {"code": 502, "message": "overloaded"}


async def test_tool_calls_stream_their_arguments_in_pieces_and_then_the_next_step_answers(
    http: Any, server: ModelServer
) -> None:
    tool = {"tool_calls": [{"name": "add", "arguments": {"a": 1, "b": {"c": 2}}}], "tool_pieces": 4}
    said = "go {{script: " + json.dumps([tool, {"text": "3"}]) + "}}"
    chunks = await chunks_of(http, server, said)
    calls = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in chunks[:-2]]
    pieces = [each[0] for each in calls if each]
    assert pieces[0]["function"]["name"] == "add"
    assert json.loads("".join(piece["function"]["arguments"] for piece in pieces)) == {
        "a": 1,
        "b": {"c": 2},
    }
    assert chunks[-3]["choices"][0]["finish_reason"] == "tool_calls"
    history = [
        {"role": "user", "content": said},
        {"role": "assistant", "tool_calls": []},
        {"role": "tool", "content": "3"},
    ]
    async with http.post(
        f"{server.base_url}/chat/completions", json={"model": "m", "messages": history}
    ) as response:
        assert (await response.json())["choices"][0]["message"]["content"] == "3"


@pytest.mark.parametrize(
    ("script", "content_type", "beginning"),
    [
        ({"raw": "html"}, "text/html", b"<!doctype"),
        ({"raw": "malformed_json"}, "text/event-stream", b": OPENROUTER"),
        ({"raw": "long_line", "raw_bytes": 200_000}, "text/event-stream", b": OPENROUTER"),
        ({"raw": "empty"}, "application/json", b""),
    ],
)
async def test_what_is_no_answer_at_all_is_sent_as_it_is(
    http: Any, server: ModelServer, script: dict[str, Any], content_type: str, beginning: bytes
) -> None:
    async with ask(http, server, script_text(**script)) as response:
        assert response.content_type == content_type
        assert (await response.read()).startswith(beginning)


async def test_bytes_can_arrive_one_by_one_and_with_crlf(http: Any, server: ModelServer) -> None:
    async with ask(
        http, server, script_text(text="héllo 🙂", split_bytes=1, crlf=True, comments=0)
    ) as response:
        body = await response.read()
    assert "héllo".encode() in body
    assert b"\n" not in body.replace(b"\r\n", b"")


async def test_installed_scripts_match_by_text_and_are_used_up(
    http: Any, server: ModelServer
) -> None:
    rules = [{"match": "weather", "times": 1, "script": {"text": "sunny"}}]
    async with http.post(f"{server.origin}/__scripts", json={"scripts": rules}) as response:
        assert response.status == 200
    answers = [
        text_of(await chunks_of(http, server, each))
        for each in ("hi", "the weather", "the weather")
    ]
    assert answers == ["You said: hi", "sunny", "You said: the weather"]


async def test_an_unknown_word_in_a_script_is_refused(http: Any, server: ModelServer) -> None:
    async with ask(http, server, '{{script: {"tokenz": 3}}}') as response:
        assert response.status == 400
        assert "tokenz" in await response.text()


async def test_the_journal_has_times_and_trace(http: Any, server: ModelServer) -> None:
    await chunks_of(http, server, script_text(tokens=2, first_token_ms=20, delay_ms=5))
    async with http.get(f"{server.origin}/__journal") as response:
        journal = await response.json()
    (entry,) = journal["entries"]
    assert entry["traceparent"] == "00-t"
    assert entry["opened_at"] <= entry["first_byte_at"] <= entry["last_byte_at"] - 0.03
    assert entry["last_byte_at"] <= journal["now"]
    assert entry["outcome"] == "completed"


async def test_models_are_listed_on_both_paths(http: Any, server: ModelServer) -> None:
    for path in ("/v1/models", "/api/v1/models"):
        async with http.get(server.origin + path) as response:
            assert [each["id"] for each in (await response.json())["data"]] == [
                "scripted/one",
                "scripted/two",
            ]


async def test_a_server_with_a_journal_counts_on_after_it_was_killed(
    http: Any, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    text = script_text(attempts=[{"text": "one"}, {"text": "two"}]) + " mark"
    said: list[str] = []
    for torn in ("", '{"key": "half a li'):
        async with ModelServer(journal=journal) as killed:
            said.append(text_of(await chunks_of(http, killed, text)))
        with journal.open("a") as file:
            file.write(torn)
    assert said == ["one", "two"]
    assert [each["prompt"] for each in prompts(journal)] == ["mark", "mark"]
