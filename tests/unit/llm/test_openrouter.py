"""OpenRouter's API: complete and incomplete answers, error codes, and any split of the bytes."""

import asyncio
import email.utils
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from services.contracts.llm.conversations import Role
from services.contracts.llm.errors import LlmErrorCode
from services.contracts.llm.turns import GenerationOptions
from services.kit.errors import ErrorCode, RpcError
from services.llm.adapters.openrouter import OpenRouterLanguageModel
from services.llm.adapters.openrouter_errors import retry_after
from services.llm.domain.commands import PromptMessage
from services.llm.ports import Finished, ModelEvent, Prompt, ReasoningDelta, TextDelta
from tests.requirements import requirement

PROMPT = Prompt(
    "m/one",
    [PromptMessage(role=Role.USER, text="hi")],
    GenerationOptions(temperature=0.5, max_output_tokens=64),
    "alice",
)
STREAM = {"content-type": "text/event-stream"}


class Pieces(httpx2.AsyncByteStream):
    """A body that arrives in these pieces, and may end with a read error."""

    def __init__(self, pieces: Sequence[bytes], broken: bool) -> None:
        self._pieces = pieces
        self._broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._broken:
            raise httpx2.ReadError("cut")


class Wire(httpx2.AsyncBaseTransport):
    """Answers every request with the same bytes."""

    def __init__(
        self,
        *pieces: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        broken: bool = False,
    ) -> None:
        self._reply = (status, STREAM if headers is None else headers, pieces, broken)
        self.asked: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(json.loads(await request.aread()))
        status, headers, pieces, broken = self._reply
        return httpx2.Response(status, headers=headers, stream=Pieces(pieces, broken))


def chunk(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def said(text: str, **more: Any) -> bytes:
    return chunk(model="m/real", choices=[{"index": 0, "delta": {"content": text}, **more}])


USAGE = chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 4, "cost": 0.5})
END = said("", finish_reason="stop")
DONE = b"data: [DONE]\n\n"


async def events(wire: Wire) -> list[ModelEvent]:
    async with httpx2.AsyncClient(transport=wire) as http:
        client = AsyncOpenAI(
            api_key="k", base_url="http://model.test/v1", max_retries=0, http_client=http
        )
        async with OpenRouterLanguageModel(client, None).stream(PROMPT) as stream:
            return [event async for event in stream]


async def failure(wire: Wire) -> RpcError:
    with pytest.raises(RpcError) as refused:
        await events(wire)
    return refused.value


async def test_the_request_asks_for_a_stream_with_its_usage() -> None:
    wire = Wire(said("a"), END, DONE)
    await events(wire)
    assert wire.asked[0] == {
        "model": "m/one",
        "messages": [{"role": "user", "content": "hi"}],
        "user": "alice",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 64,
    }


@requirement("model:terminal-rule")
@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ([END, USAGE, DONE], "stop"),
        ([END, USAGE], "stop"),
        ([END, DONE], "stop"),
        ([said("", finish_reason="length"), DONE], "length"),
    ],
)
async def test_an_answer_with_finish_reason_and_end_is_complete(
    ending: list[bytes], reason: str
) -> None:
    found = await events(Wire(said("Hel"), said("lo"), *ending))
    assert found[:2] == [TextDelta("Hel"), TextDelta("lo")]
    last = found[-1]
    assert isinstance(last, Finished)
    assert (last.finish_reason, last.model) == (reason, "m/real")
    assert (last.usage is not None) == (USAGE in ending)


@requirement("model:terminal-rule", "model:cuts", "model:error-in-200")
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ([], LlmErrorCode.STREAM_INCOMPLETE),
        ([END], LlmErrorCode.STREAM_INCOMPLETE),
        ([USAGE], LlmErrorCode.STREAM_INCOMPLETE),
        ([DONE], LlmErrorCode.STREAM_INCOMPLETE),
        ([USAGE, DONE], LlmErrorCode.STREAM_INCOMPLETE),
        ([END, DONE[:-1]], LlmErrorCode.STREAM_INCOMPLETE),
        ([b'data: {"choices": [\n\n', DONE], LlmErrorCode.STREAM_INCOMPLETE),
        ([b"data: " + b"x" * 10_000_000], LlmErrorCode.STREAM_INCOMPLETE),
        ([said("", finish_reason="content_filter"), DONE], LlmErrorCode.CONTENT_FILTERED),
        ([said("", finish_reason="error"), DONE], ErrorCode.UPSTREAM_ERROR),
        ([said("", error={"code": 429, "message": "slow"})], ErrorCode.RATE_LIMITED),
        ([chunk(error={"code": 503, "message": "none"})], LlmErrorCode.MODEL_UNAVAILABLE),
        ([chunk(error={"code": "server_error", "message": "x"})], ErrorCode.UPSTREAM_ERROR),
    ],
)
async def test_an_answer_without_a_complete_end_is_a_failure(
    ending: list[bytes], code: ErrorCode
) -> None:
    assert (await failure(Wire(said("Hel"), *ending))).code is code


@requirement("model:cuts")
async def test_a_broken_connection_is_a_failure_even_after_the_finish_reason() -> None:
    broken = await failure(Wire(said("Hel"), END, broken=True))
    assert broken.code is LlmErrorCode.STREAM_INCOMPLETE
    whole = await events(Wire(said("Hel"), END, DONE, broken=True))
    assert isinstance(whole[-1], Finished)


@requirement("model:error-in-200")
@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("text/html", b"<html>", ErrorCode.UPSTREAM_ERROR),
        ("application/json", b"", ErrorCode.UPSTREAM_ERROR),
        ("application/json", b"x" * 200_000, ErrorCode.UPSTREAM_ERROR),
        (
            "application/json",
            b'{"error": {"code": 402, "message": "m"}}',
            ErrorCode.BUDGET_EXCEEDED,
        ),
    ],
)
async def test_a_200_without_a_stream_is_a_failure(kind: str, body: bytes, code: ErrorCode) -> None:
    assert (await failure(Wire(body, headers={"content-type": kind}))).code is code


@requirement("model:retry-by-class")
@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "bad", ErrorCode.INVALID_ARGUMENT),
        (400, "maximum context length is 8192", LlmErrorCode.CONTEXT_LENGTH_EXCEEDED),
        (400, "x is not a valid model ID", LlmErrorCode.MODEL_INVALID),
        (401, "key", ErrorCode.FAILED_PRECONDITION),
        (402, "credit", ErrorCode.BUDGET_EXCEEDED),
        (403, "flagged", LlmErrorCode.CONTENT_FILTERED),
        (404, "none", LlmErrorCode.MODEL_INVALID),
        (408, "late", ErrorCode.DEADLINE_EXCEEDED),
        (413, "long", LlmErrorCode.CONTEXT_LENGTH_EXCEEDED),
        (422, "bad", ErrorCode.INVALID_ARGUMENT),
        (429, "slow", ErrorCode.RATE_LIMITED),
        (500, "oops", ErrorCode.UPSTREAM_ERROR),
        (502, "down", ErrorCode.UPSTREAM_ERROR),
        (503, "none", LlmErrorCode.MODEL_UNAVAILABLE),
        (529, "busy", LlmErrorCode.MODEL_UNAVAILABLE),
    ],
)
async def test_each_status_has_its_code(status: int, message: str, code: ErrorCode) -> None:
    body = json.dumps({"error": {"code": status, "message": f"{message} of acme"}}).encode()
    json_type = {"content-type": "application/json", "retry-after": "7"}
    error = await failure(Wire(body, status=status, headers=json_type))
    assert error.code is code
    assert error.retry_after == timedelta(seconds=7)
    assert "acme" not in error.message


@requirement("model:retry-by-class")
def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert retry_after("12") == timedelta(seconds=12)
    soon = retry_after(email.utils.formatdate(usegmt=True, timeval=None))
    assert soon == timedelta(0)
    later = retry_after("Fri, 31 Dec 9999 23:59:59 GMT")
    assert later is not None
    assert later > timedelta(days=365)


@pytest.mark.parametrize("value", [None, "", "soon", "-1", "1.5", "9" * 30])
def test_an_invalid_retry_after_is_ignored(value: str | None) -> None:
    assert retry_after(value) is None


texts = st.text(
    st.one_of(st.sampled_from("é🙂\u2028\r\n\\ \"'"), st.characters(exclude_categories=["Cs"])),
    max_size=8,
)
parts = st.one_of(
    texts.map(said),
    texts.map(lambda text: chunk(choices=[{"delta": {"reasoning": text}}])),
    st.just(b": OPENROUTER PROCESSING\n\n"),
)


@requirement("model:chunk-boundaries")
@given(st.lists(parts, max_size=6), st.booleans(), st.data())
def test_any_split_of_the_bytes_gives_the_same_answer(
    body: list[bytes], crlf: bool, data: st.DataObject
) -> None:
    whole = b"".join([*body, END, USAGE, DONE])
    whole = whole.replace(b"\n\n", b"\r\n\r\n") if crlf else whole
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    at_once, in_pieces = asyncio.run(_both(whole, pieces))
    assert in_pieces == at_once


async def _both(whole: bytes, pieces: list[bytes]) -> tuple[list[ModelEvent], list[ModelEvent]]:
    return await events(Wire(whole)), await events(Wire(*pieces))


async def test_reasoning_is_separate_from_the_text() -> None:
    thought = chunk(choices=[{"delta": {"reasoning_content": "hm"}}])
    assert (await events(Wire(thought, said("a"), END, DONE)))[:2] == [
        ReasoningDelta("hm"),
        TextDelta("a"),
    ]


def test_only_listed_models_are_allowed() -> None:
    model = OpenRouterLanguageModel(AsyncOpenAI(api_key="k"), frozenset({"m/one"}))
    model.require_allowed("m/one")
    with pytest.raises(RpcError) as refused:
        model.require_allowed("m/two")
    assert refused.value.code is LlmErrorCode.MODEL_INVALID
