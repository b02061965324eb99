"""`LanguageModel` over OpenRouter's API.

An answer is complete only with a finish reason and with usage or `[DONE]`; anything else is STREAM_INCOMPLETE. Errors
in the body of a 200, or within its stream, are raised. Nothing is retried here: the workflow retries.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, ValidationError

from services.contracts.llm.conversations import Role
from services.contracts.llm.errors import LlmErrorCode
from services.contracts.llm.turns import MAX_TURN_TIME, Usage
from services.kit.errors import RpcError
from services.kit.http.sse_decoder import OversizeEvent, SseDecoder
from services.kit.outbound.client import OutboundTimeouts, open_outbound
from services.llm.adapters.openrouter_errors import (
    ErrorObject,
    from_error_object,
    from_status,
    incomplete,
    unreachable,
)
from services.llm.ports import Finished, ModelEvent, Prompt, ReasoningDelta, TextDelta
from services.llm.settings import LlmSettings

DONE: Final = "[DONE]"
DRAIN_SECONDS: Final = 0.05
COMPLETE_REASONS: Final = frozenset({"stop", "length"})
MAX_ERROR_BODY: Final = 64 * 1024
ROLES: Final = {Role.SYSTEM: "system", Role.USER: "user", Role.ASSISTANT: "assistant"}


class OpenRouterLanguageModel:
    """Calls the chat completions API."""

    def __init__(self, client: AsyncOpenAI, allowed: frozenset[str] | None) -> None:
        self._client = client
        self._allowed = allowed

    def require_allowed(self, model: str) -> None:
        if self._allowed is not None and model not in self._allowed:
            raise RpcError(LlmErrorCode.MODEL_INVALID, "The requested model is not available.")

    @asynccontextmanager
    async def stream(self, prompt: Prompt) -> AsyncIterator[AsyncIterator[ModelEvent]]:
        response = await self._open(prompt)
        try:
            yield _events(response, prompt.model)
        finally:
            await response.aclose()

    async def _open(self, prompt: Prompt) -> httpx2.Response:
        try:
            # `post` instead of the typed `create`, which walks every message to rename keys.
            stream = await self._client.post(
                "/chat/completions",
                cast_to=ChatCompletionChunk,
                body=_request(prompt),
                stream=True,
                stream_cls=AsyncStream[ChatCompletionChunk],
            )
        except openai.APIStatusError as error:
            raise from_status(error.response, error.body, prompt.model) from error
        except openai.APIConnectionError as error:
            raise unreachable(error, prompt.model) from error
        except openai.APIError as error:
            raise from_error_object(ErrorObject(message=error.message), prompt.model) from error
        return stream.response


async def _events(response: httpx2.Response, model: str) -> AsyncIterator[ModelEvent]:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise await _error_in_body(response, model)
    answer = _Answer(model)
    decoder = SseDecoder()
    chunks = response.aiter_bytes()
    try:
        async for chunk in chunks:
            for data in decoder.feed(chunk):
                if data == DONE:
                    yield answer.finish(done=True)
                    await _drain(chunks)
                    return
                for event in answer.feed(data):
                    yield event
    except OversizeEvent as error:
        raise incomplete(model, "an event is too long") from error
    except (httpx2.TransportError, openai.APIError) as error:
        raise incomplete(model, type(error).__name__) from error
    yield answer.finish(done=False)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read to the end of the body, so that the connection can be reused."""
    with suppress(TimeoutError, httpx2.TransportError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in chunks:
                pass


class _Answer:
    """Accumulates the chunks of one answer."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def feed(self, data: str) -> list[ModelEvent]:
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError as error:
            raise incomplete(self._model, "a chunk is malformed") from error
        if chunk.error is not None:
            raise from_error_object(chunk.error, self._model)
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = chunk.usage.view()
        return [event for choice in chunk.choices or () for event in self._fold(choice)]

    def finish(self, *, done: bool) -> Finished:
        """The end of the answer; raises if it is incomplete or failed."""
        if self._finish_reason is None or not (done or self._usage):
            raise incomplete(self._model, "the stream ended early")
        if self._finish_reason == "content_filter":
            raise RpcError(LlmErrorCode.CONTENT_FILTERED, "The provider filtered the answer.")
        if self._finish_reason not in COMPLETE_REASONS:
            error = ErrorObject(message=f"finish reason {self._finish_reason}")
            raise from_error_object(error, self._model)
        return Finished(self._finish_reason, self._model, self._usage)

    def _fold(self, choice: "_Choice") -> list[ModelEvent]:
        if choice.error is not None:
            raise from_error_object(choice.error, self._model)
        self._finish_reason = choice.finish_reason or self._finish_reason
        events: list[ModelEvent] = []
        if choice.delta is not None:
            if reasoning := choice.delta.reasoning or choice.delta.reasoning_content:
                events.append(ReasoningDelta(reasoning))
            if choice.delta.content:
                events.append(TextDelta(choice.delta.content))
        return events


class _Delta(BaseModel):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    delta: _Delta | None = None
    finish_reason: str | None = None
    error: ErrorObject | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int | None = None
    cost: float | None = None

    def view(self) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=self.total_tokens or self.prompt_tokens + self.completion_tokens,
            cost=self.cost,
        )


class _Chunk(BaseModel):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: ErrorObject | None = None


class _ErrorBody(BaseModel):
    error: ErrorObject


async def _error_in_body(response: httpx2.Response, model: str) -> RpcError:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ERROR_BODY:
            break
    try:
        return from_error_object(_ErrorBody.model_validate_json(body).error, model)
    except ValidationError:
        return from_error_object(ErrorObject(message="the reply is not a stream"), model)


def _request(prompt: Prompt) -> dict[str, Any]:
    request: dict[str, Any] = {
        "model": prompt.model,
        "messages": [
            {"role": ROLES[message.role], "content": message.text} for message in prompt.messages
        ],
        "user": prompt.user,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if prompt.options.temperature is not None:
        request["temperature"] = prompt.options.temperature
    if prompt.options.max_output_tokens is not None:
        request["max_tokens"] = prompt.options.max_output_tokens
    return request


@asynccontextmanager
async def open_language_model(settings: LlmSettings) -> AsyncIterator[OpenRouterLanguageModel]:
    """Open the configured model with its connection pool."""
    key = settings.api_key.get_secret_value() or "local"
    timeouts = OutboundTimeouts(
        connect=settings.connect_timeout,
        first_byte=settings.first_byte_timeout,
        between_chunks=settings.between_chunks_timeout,
        total=MAX_TURN_TIME.total_seconds(),
    )
    async with open_outbound(timeouts, trusted=[settings.base_url]) as http:
        client = AsyncOpenAI(
            api_key=key, base_url=settings.base_url, max_retries=0, http_client=http
        )
        yield OpenRouterLanguageModel(client, settings.allowed_models)
