"""The model behind OpenRouter's wire: the only module that imports `openai`.

Terminal rule: an answer is complete only with a finish reason and with usage or `[DONE]`; anything else is
STREAM_INCOMPLETE. Errors inside a 200, in the body or mid-stream, are errors.
Nothing is retried here: the workflow owns retries.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
import openai
from openai import AsyncOpenAI

from services.contracts.conversations import Role, Usage
from services.contracts.turns import MAX_TURN_TIME
from services.kit.errors import ErrorCode, RpcError
from services.kit.outbound import OutboundTimeouts, open_outbound
from services.kit.sse_decoder import OversizeEvent, SseDecoder
from services.llm.adapters.openrouter_errors import from_error_object, from_status, incomplete, unreachable
from services.llm.settings import LlmSettings
from services.llm.ports import Finished, ModelEvent, Prompt, ReasoningDelta, TextDelta

DONE: Final = "[DONE]"
ALLOWED_ENDS: Final = frozenset({"stop", "length"})
MAX_ERROR_BODY: Final = 64 * 1024
ROLES: Final = {Role.SYSTEM: "system", Role.USER: "user", Role.ASSISTANT: "assistant"}


class OpenRouterLanguageModel:
    """`LanguageModel` over chat completions (OpenAI wire)."""

    def __init__(self, client: AsyncOpenAI, allowed: frozenset[str] | None) -> None:
        self._client = client
        self._allowed = allowed

    def check(self, model: str) -> None:
        """MODEL_INVALID for a model that may not be used."""
        if self._allowed is not None and model not in self._allowed:
            raise RpcError(ErrorCode.MODEL_INVALID, "The requested model is not available.")

    @asynccontextmanager
    async def stream(self, prompt: Prompt) -> AsyncIterator[AsyncIterator[ModelEvent]]:
        """The answer as it is made; leaving the context closes the socket."""
        response = await self._open(prompt)
        try:
            yield _events(response, prompt.model)
        finally:
            await response.aclose()

    async def _open(self, prompt: Prompt) -> httpx2.Response:
        try:
            stream: Any = await self._client.chat.completions.create(
                stream=True, stream_options={"include_usage": True}, **_request(prompt)
            )
        except openai.APIStatusError as error:
            raise from_status(error.response, error.body, prompt.model) from error
        except openai.APIConnectionError as error:
            raise unreachable(error, prompt.model) from error
        except openai.APIError as error:
            raise from_error_object({"message": error.message}, prompt.model) from error
        return stream.response


async def _events(response: httpx2.Response, model: str) -> AsyncIterator[ModelEvent]:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise await _error_in_body(response, model)
    answer = _Answer(model)
    decoder = SseDecoder()
    try:
        async for chunk in response.aiter_bytes():
            for data in decoder.feed(chunk):
                if data == DONE:
                    yield answer.finish(done=True)
                    return
                for event in answer.take(data):
                    yield event
    except OversizeEvent as error:
        raise incomplete(model, "an event is too long") from error
    except (httpx2.TransportError, openai.APIError) as error:
        raise incomplete(model, type(error).__name__) from error
    yield answer.finish(done=False)


class _Answer:
    """Folds the chunks of one answer."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def take(self, data: str) -> list[ModelEvent]:
        """What a chunk brings."""
        try:
            chunk: Any = json.loads(data)
        except ValueError as error:
            raise incomplete(self._model, "a chunk is not JSON") from error
        if not isinstance(chunk, dict):
            raise incomplete(self._model, "a chunk is not an object")
        return self._fold(chunk)

    def finish(self, *, done: bool) -> Finished:
        """The end of the answer, if it is one."""
        if self._finish_reason is None or not (done or self._usage):
            raise incomplete(self._model, "the stream ended early")
        if self._finish_reason == "content_filter":
            raise RpcError(ErrorCode.CONTENT_FILTERED, "The provider filtered the answer.")
        if self._finish_reason not in ALLOWED_ENDS:
            raise from_error_object({"message": f"finish reason {self._finish_reason}"}, self._model)
        return Finished(self._finish_reason, self._model, self._usage)

    def _fold(self, chunk: dict[str, Any]) -> list[ModelEvent]:
        if chunk.get("error"):
            raise from_error_object(chunk["error"], self._model)
        self._model = chunk.get("model") or self._model
        if usage := chunk.get("usage"):
            self._usage = _usage(usage)
        events: list[ModelEvent] = []
        for choice in chunk.get("choices") or ():
            if choice.get("error"):
                raise from_error_object(choice["error"], self._model)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            delta = choice.get("delta") or {}
            if reasoning := delta.get("reasoning") or delta.get("reasoning_content"):
                events.append(ReasoningDelta(reasoning))
            if text := delta.get("content"):
                events.append(TextDelta(text))
        return events


async def _error_in_body(response: httpx2.Response, model: str) -> RpcError:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ERROR_BODY:
            break
    try:
        found = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return from_error_object({"message": "the reply is not a stream"}, model)
    return from_error_object(found, model)


def _request(prompt: Prompt) -> dict[str, Any]:
    request: dict[str, Any] = {
        "model": prompt.model,
        "messages": [{"role": ROLES[message.role], "content": message.text} for message in prompt.messages],
        "user": prompt.user,
    }
    if prompt.temperature is not None:
        request["temperature"] = prompt.temperature
    if prompt.max_output_tokens is not None:
        request["max_tokens"] = prompt.max_output_tokens
    return request


def _usage(usage: dict[str, Any]) -> Usage:
    prompt, completion = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=int(usage.get("total_tokens") or prompt + completion),
        cost=usage.get("cost"),
    )


@asynccontextmanager
async def open_language_model(settings: LlmSettings) -> AsyncIterator[OpenRouterLanguageModel]:
    """The model that the settings name, with its connections."""
    key = settings.api_key.get_secret_value() or "local"
    timeouts = OutboundTimeouts(
        connect=settings.connect_timeout,
        first_byte=settings.first_byte_timeout,
        between_chunks=settings.between_chunks_timeout,
        total=MAX_TURN_TIME.total_seconds(),
    )
    async with open_outbound(timeouts, trusted=[settings.base_url]) as http:
        client = AsyncOpenAI(api_key=key, base_url=settings.base_url, max_retries=0, http_client=http)
        yield OpenRouterLanguageModel(client, settings.allowed_models)
