"""On a developer's terminal log lines are readable; in production they are JSON everywhere."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from services.kit.telemetry.logs import configure_logs
from tests.requirements import requirement


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def written(monkeypatch: pytest.MonkeyPatch, **environ: str) -> str:
    """What an app writes to its terminal."""
    terminal = Terminal()
    for name in ("NO_COLOR", "FORCE_COLOR", "YOCASO_ENV"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **environ}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", terminal)
    configure_logs("llm")
    structlog.get_logger().info("turn.completed", tokens=40)
    logging.getLogger("uvicorn.error").warning("slow")
    return terminal.getvalue()


@requirement("stack:console")
def test_a_terminal_gets_readable_coloured_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(monkeypatch).splitlines()
    assert len(lines) == 2
    assert "turn.completed" in lines[0]
    assert "tokens" in lines[0]
    assert "\x1b[" in lines[0]
    assert '"event"' not in lines[0]
    assert "slow" in lines[1]


@requirement("stack:console")
def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(monkeypatch, NO_COLOR="1")
    assert "turn.completed tokens=40" in text
    assert "\x1b" not in text


@requirement("stack:console")
@pytest.mark.parametrize("environ", [{"YOCASO_ENV": "production"}, {"TERM": "dumb"}])
def test_production_and_a_terminal_without_control_sequences_get_json(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    first, second = map(json.loads, written(monkeypatch, **environ).splitlines())
    assert (first["event"], first["tokens"]) == ("turn.completed", 40)
    assert (second["event"], second["level"]) == ("slow", "warning")
