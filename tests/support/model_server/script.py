"""Scripts of answers, in the message itself or installed beforehand."""

import json
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

Cut = Literal["fin", "rst", "hang"]
Raw = Literal["malformed_json", "html", "long_line", "empty"]

DIRECTIVE = re.compile(r"\{\{script:\s*")
UNICODE_WORDS = (
    "naïve ",
    "日本語 ",
    "🙂🙃 ",
    "Ωmega ",
    "e\u0301te\u0301 ",
    "👩‍👩‍👧 ",
    "\u2028line ",
    "𝔘nicode ",
)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of the model; its arguments are streamed in pieces."""

    name: str
    arguments: str = "{}"
    id: str = "call_1"


@dataclass(frozen=True, slots=True)
class Script:
    """The behaviour of one answer; times in milliseconds. The defaults make a normal stream."""

    text: str | None = None
    tokens: int | None = None
    unicode: bool = False
    delay_ms: float = 0
    first_byte_ms: float = 0
    first_token_ms: float = 0
    comments: int = 1
    reasoning: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_pieces: int = 3
    finish: str | None = "stop"
    done: bool = True
    usage: bool = True
    prompt_tokens: int | None = None
    cut: Cut | None = None
    cut_after: int = 0
    gate: str | None = None
    gate_after: int = 0
    status: int = 200
    message: str | None = None
    fail_times: int | None = None
    retry_after: str | None = None
    error_after: int | None = None
    error_body: bool = False
    error_code: int | str = 502
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    raw: Raw | None = None
    raw_bytes: int = 10_000_000
    framing: Literal["chunked", "close"] = "chunked"
    split_bytes: int = 0
    crlf: bool = False
    attempts: tuple["Script", ...] = ()

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Self:
        """A script from JSON; an unknown name is a ValueError, since a typo would give a normal stream."""
        unknown = value.keys() - {each.name for each in fields(cls)}
        if unknown:
            raise ValueError(f"a script has no {', '.join(sorted(unknown))}")
        tools = tuple(
            _tool_call(number, each) for number, each in enumerate(value.get("tool_calls", ()), 1)
        )
        converted: dict[str, Any] = {
            **value,
            "reasoning": tuple(value.get("reasoning", ())),
            "tool_calls": tools,
            "finish": value.get("finish", "tool_calls" if tools else "stop"),
            "attempts": tuple(cls.parse(each) for each in value.get("attempts", ())),
        }
        return cls(**converted)

    def at_attempt(self, attempt: int) -> "Script":
        """The script of the n-th attempt (from 1)."""
        if self.attempts:
            return self.attempts[min(attempt, len(self.attempts)) - 1]
        if self.fail_times is not None and attempt > self.fail_times:
            return replace(self, status=200, error_after=None, error_body=False, cut=None, raw=None)
        return self

    def pieces(self, prompt: str) -> list[str]:
        """The content deltas, determined by script and prompt."""
        if self.tokens is not None:
            if self.unicode:
                return [UNICODE_WORDS[number % len(UNICODE_WORDS)] for number in range(self.tokens)]
            return [f"token{number} " for number in range(self.tokens)]
        if self.text is None and self.tool_calls:
            return []
        return re.findall(
            r"\S+\s*|\s+", self.text if self.text is not None else f"You said: {prompt}"
        )

    def answer(self, prompt: str) -> str:
        return "".join(self.pieces(prompt))


def _tool_call(number: int, value: dict[str, Any]) -> ToolCall:
    arguments = value.get("arguments", "{}")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ToolCall(name=value["name"], arguments=text, id=value.get("id", f"call_{number}"))


def directive(message: str) -> tuple[list[Script] | None, str]:
    """The scripts in a message, one per step of a tool loop, and the message without its directive."""
    found = DIRECTIVE.search(message)
    if found is None:
        return None, message
    value, end = json.JSONDecoder().raw_decode(message, found.end())
    rest = message[end:].lstrip()
    if not rest.startswith("}}"):
        raise ValueError("a directive is {{script: JSON}}")
    steps = [value] if isinstance(value, dict) else value
    return [Script.parse(step) for step in steps], (message[: found.start()] + rest[2:]).strip()


def script_text(**behaviour: Any) -> str:
    """A directive for a user message: `script_text(tokens=40, delay_ms=5)`."""
    Script.parse(behaviour)
    return "{{script: " + json.dumps(behaviour) + "}}"


@dataclass(slots=True)
class Rule:
    """A script installed beforehand, for requests whose last user message contains `match`."""

    script: Script
    match: str = ""
    times: int | None = None

    def take(self, prompt: str) -> bool:
        """Whether the rule applies; counts a use of a limited rule."""
        if self.match not in prompt or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True
