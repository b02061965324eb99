"""Removes secrets from log events: by field name, by text pattern, and by the values of the process's own secrets."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from structlog.typing import EventDict, WrappedLogger

REDACTED: Final = "[redacted]"
MAX_DEPTH: Final = 8
MIN_KNOWN_LENGTH: Final = 8
MAX_TEXT: Final = 16 * 1024
"""Longer texts are cut before the search, which would block the event loop."""

_SECRET_NAME: Final = re.compile(
    r"authorization|token|api[-_]?key|passw(?:or)?d|secret|cookie|credential|private[-_]?key",
    re.IGNORECASE,
)
_SECRET_VARIABLE: Final = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)$")
_FORMS: Final = (
    # postgres://user:password@host
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://)[^\s/?#\"']*@", re.IGNORECASE), rf"\1{REDACTED}@"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\beyJ[\w-]{5,2048}\.[\w-]{2,}(?:\.[\w-]*)?"), REDACTED),
    (re.compile(r"\b(?:sk-|yk_)[\w-]{6,}"), REDACTED),
    (re.compile(r"\bwhsec_[\w+/=-]{6,}"), REDACTED),
    (re.compile(r"(\bX-Amz-Signature=)\w+", re.IGNORECASE), rf"\1{REDACTED}"),
    (
        re.compile(r"((?:set-)?cookie(?:[\"']?\s*[:=]|[\"'],)\s*)[^\r\n]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    # password=…, 'dapr-api-token': '…', "api_key": "…", (b'token', b'…')
    (
        re.compile(
            r"((?:authorization|token|api[-_]?key|passw(?:or)?d|secret|credential)(?:[\"']?\]?\s*[:=]|[\"'],)\s*)"
            r"(\"[^\"\r\n]*\"|'[^'\r\n]*'|b'[^'\r\n]*'|[^\s,;&}\])]+)",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
)


def known_secrets(environment: Mapping[str, str]) -> list[str]:
    """The secrets in the process's environment variables."""
    return [
        value
        for name, value in environment.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= MIN_KNOWN_LENGTH
    ]


class Redactor:
    """A structlog processor that replaces secrets by `[redacted]`."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        longest_first = sorted(set(known), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {name: self._field(name, value, 0) for name, value in event.items()}

    def text(self, text: str) -> str:
        if len(text) > MAX_TEXT:
            text = text[:MAX_TEXT] + " [cut]"
        if self._known:
            text = self._known.sub(REDACTED, text)
        for form, replacement in _FORMS:
            text = form.sub(replacement, text)
        return text

    def _field(self, name: object, value: Any, depth: int) -> Any:
        # Numbers pass, such as a count of tokens.
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(name, str) and _SECRET_NAME.search(name):
            return REDACTED
        return self._value(value, depth)

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth >= MAX_DEPTH:
            return REDACTED
        if isinstance(value, Mapping):
            found = cast(Mapping[Any, Any], value)
            return {
                self.text(str(each)): self._field(each, inner, depth + 1)
                for each, inner in found.items()
            }
        if isinstance(value, Sequence | set | frozenset) and not isinstance(
            value, str | bytes | bytearray
        ):
            return self._items(cast(Iterable[Any], value), depth)
        return self.text(value if isinstance(value, str) else _shown(value))

    def _items(self, values: Iterable[Any], depth: int) -> list[Any]:
        return [
            # A header as a (name, value) pair is redacted by its name, as in a mapping.
            self._pair(cast(Sequence[Any], each), depth)
            if _is_pair(each)
            else self._value(each, depth + 1)
            for each in values
        ]

    def _pair(self, pair: Sequence[Any], depth: int) -> list[Any]:
        name = pair[0].decode("latin-1") if isinstance(pair[0], bytes) else pair[0]
        return [self.text(name), self._field(name, pair[1], depth + 1)]


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(cast(Sequence[Any], value)) == 2
        and isinstance(value[0], str | bytes)
    )


def _shown(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)
