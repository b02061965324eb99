"""OpenRouter's chat-completion responses as bytes."""

import json
import time
from http import HTTPStatus
from typing import Any, Final

from tests.support.model_server.script import Script, ToolCall

PROVIDER: Final = "Scripted"
PRICE_PER_TOKEN: Final = 0.000002
COMMENT: Final = b": OPENROUTER PROCESSING\n\n"
DONE: Final = b"data: [DONE]\n\n"


class Chunks:
    """The chunks of one answer; constant parts are encoded once."""

    def __init__(self, number: int, model: str) -> None:
        self._head: dict[str, Any] = {
            "id": f"gen-{number}",
            "provider": PROVIDER,
            "model": model,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
        }
        before, after = self._chunk({"role": "assistant", "content": "\0"}).split(
            json.dumps("\0").encode()
        )
        self._before, self._after = before, after

    def _event(self, **rest: Any) -> bytes:
        return (
            b"data: " + json.dumps({**self._head, **rest}, separators=(",", ":")).encode() + b"\n\n"
        )

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "finish_reason": finish,
            "native_finish_reason": finish,
        }
        return self._event(choices=[{**choice, "logprobs": None}])

    def role(self) -> bytes:
        return self.content("")

    def content(self, text: str) -> bytes:
        """A piece of text, as raw UTF-8 so that a cut can split a character."""
        return self._before + json.dumps(text, ensure_ascii=False).encode() + self._after

    def reasoning(self, text: str) -> bytes:
        details = [{"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}]
        return self._chunk(
            {"role": "assistant", "content": "", "reasoning": text, "reasoning_details": details}
        )

    def tool_call(self, index: int, call: ToolCall, pieces: int) -> list[bytes]:
        """A tool call: its name first, then its arguments in pieces."""
        head = {"index": index, "id": call.id, "type": "function"}
        size = max(1, -(-len(call.arguments) // max(1, pieces)))
        parts = [
            call.arguments[start : start + size] for start in range(0, len(call.arguments), size)
        ]
        deltas: list[dict[str, Any]] = [
            {**head, "function": {"name": call.name, "arguments": ""}},
            *({"index": index, "function": {"arguments": part}} for part in parts),
        ]
        return [
            self._chunk({"role": "assistant", "content": None, "tool_calls": [each]})
            for each in deltas
        ]

    def finish(self, reason: str) -> bytes:
        """The chunk with the finish reason."""
        return self._chunk({"role": "assistant", "content": ""}, reason)

    def usage(self, prompt: int, completion: int) -> bytes:
        """The last chunk: usage and cost, no choices."""
        return self._event(choices=[], usage=usage(prompt, completion))

    def error(self, script: Script) -> bytes:
        """An error inside a stream with status 200."""
        choice = {
            "index": 0,
            "delta": {"content": ""},
            "finish_reason": "error",
            "native_finish_reason": "error",
        }
        return self._event(**error_body(script, script.error_code), choices=[choice])


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """OpenRouter's usage object."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cost": round((prompt + completion) * PRICE_PER_TOKEN, 9),
        "is_byok": False,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "cost_details": {"upstream_inference_cost": None},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


MESSAGES: Final = {
    401: "No auth credentials found",
    402: "Insufficient credits",
    403: "Your input was flagged by moderation",
    404: "No endpoints found for the model",
    408: "Request timed out",
    429: "Rate limit exceeded",
    529: "Provider returned error: overloaded",
}


def error_body(script: Script, code: int | str) -> dict[str, Any]:
    message = script.message
    if message is None and isinstance(code, int):
        known = {each.value: each.phrase for each in HTTPStatus}
        message = MESSAGES.get(code) or known.get(code)
    error: dict[str, Any] = {"code": code, "message": message or "Provider returned error"}
    if script.metadata:
        error["metadata"] = script.metadata
    return {"error": error, "user_id": "user_scripted"}


def completion(
    number: int, model: str, script: Script, text: str, prompt_tokens: int, completion_tokens: int
) -> dict[str, Any]:
    """The response of a call without streaming."""
    message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
    if script.reasoning:
        message["reasoning"] = "".join(script.reasoning)
    if script.tool_calls:
        message["tool_calls"] = [
            {
                "index": index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(script.tool_calls)
        ]
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": script.finish,
        "native_finish_reason": script.finish,
        "logprobs": None,
    }
    body: dict[str, Any] = {
        "id": f"gen-{number}",
        "provider": PROVIDER,
        "model": model,
        "object": "chat.completion",
        "created": int(time.time()),
        "choices": [choice],
    }
    return {**body, "usage": usage(prompt_tokens, completion_tokens)} if script.usage else body


def model_list(models: tuple[str, ...]) -> dict[str, Any]:
    """The body of GET /v1/models."""
    return {
        "data": [
            {
                "id": name,
                "name": name,
                "created": 1_700_000_000,
                "context_length": 131_072,
                "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
                "pricing": {"prompt": str(PRICE_PER_TOKEN), "completion": str(PRICE_PER_TOKEN)},
                "supported_parameters": ["max_tokens", "temperature", "tools"],
            }
            for name in models
        ]
    }
