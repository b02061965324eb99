"""The live display on a terminal."""

import io
import re
import threading

import pytest

from services.cli.console import open_console
from services.cli.stack.builds import BuildStatus
from services.cli.stack.listener import State
from services.cli.terminal import TerminalConsole
from tests.requirements import requirement
from tests.support.wait import wait_until

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen(io.StringIO):
    """A terminal that keeps what it was sent."""

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return CONTROL.sub("", self.getvalue())


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return Screen()


def a_console() -> TerminalConsole:
    """The console that `yocaso up` opens on a terminal."""
    console = open_console(as_json=False)
    assert isinstance(console, TerminalConsole)
    return console


@requirement("stack:console")
async def test_states_change_in_place_and_logs_stay_whole(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", screen)
    console = a_console()

    def write() -> None:
        for number in range(100):
            console.log("llm", f"line {number}")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    for number in range(100):
        console.process("llm", State.STARTING if number < 99 else State.READY, 1.5)
        console.building(BuildStatus(0.5, 120.0, "daprd (net/http)", 1, 4))
    writer.join(5)
    assert not writer.is_alive()
    progress = "built 1 of 4 programs, 50%, about 2 min left"
    await wait_until(lambda: progress in screen.text, 5, "the progress of the builds")
    assert "daprd (net/http)" in screen.text
    console.settle()
    for number in range(100):
        assert f"llm              | line {number}\n" in screen.text
    assert screen.text.rstrip().endswith("llm               ready in 1.5 s")


@requirement("stack:console")
def test_after_the_start_states_are_lines(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", screen)
    console = a_console()
    console.process("llm", State.READY, 1.5)
    console.settle()
    console.process("llm", State.ENDED, note="terminated by SIGKILL")
    console.process("llm", State.READY, 2.0)
    console.summary("Yocaso is ready", {"edge": "http://127.0.0.1:8080"}, "\nStop with Ctrl-C.\n")
    last = screen.text.splitlines()
    assert "llm              | ended (terminated by SIGKILL)" in last
    assert "llm              | ready again in 2.0 s" in last
    assert any("edge" in line and "http://127.0.0.1:8080" in line for line in last)
    assert last[-1] == "Stop with Ctrl-C."


@requirement("stack:console")
def test_no_color_keeps_the_display_without_colours(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("NO_COLOR", "1")
    console = a_console()
    console.process("llm", State.READY, 1.5)
    console.log("llm", '{"event":"turn.completed","level":"info"}')
    console.settle()
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", screen.getvalue())
    assert "turn.completed" in screen.text
