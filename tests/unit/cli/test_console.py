"""Console output: readable log lines with process names, across rotations; states of processes; JSON; colours."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from services.cli.console import Console, JsonConsole, open_console
from services.cli.log_follower import LogFollower
from services.cli.stack.builds import BuildStatus
from services.cli.stack.listener import State
from services.kit.telemetry.console_format import is_terminal, wants_colours
from tests.requirements import requirement


@pytest.fixture
def follower(tmp_path: Path) -> LogFollower:
    return LogFollower(
        Console(colours=False), {"llm": tmp_path / "llm.log"}, tmp_path / "supervisor.log"
    )


def a_line(**fields: Any) -> str:
    return json.dumps({"timestamp": "2026-11-27T18:28:48.061734Z", "level": "info", **fields})


def test_complete_new_lines_are_printed_with_the_process_name(
    follower: LogFollower, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "llm.log"
    log.write_text("old\n")
    follower.begin()
    with log.open("a") as file:
        file.write("first\nsecond\nunfinished")
    follower.close()
    assert capsys.readouterr().out == "llm              | first\nllm              | second\n"


def test_a_rotation_loses_no_line(
    follower: LogFollower, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "llm.log"
    log.write_text("")
    follower.begin()
    with log.open("a") as file:
        file.write("before\n")
    log.rename(tmp_path / "llm.log.1")
    log.write_text("after\n")
    follower.poll()
    follower.poll()
    follower.close()
    assert [line.split("| ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "before",
        "after",
    ]


@requirement("stack:restart")
def test_exits_restarts_and_giving_up_are_reported(
    follower: LogFollower, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "supervisor.log"
    log.write_text("")
    follower.begin()
    with log.open("a") as file:
        file.write(
            "2026 INFO spawned: 'llm' with pid 1\n"
            "2026 WARN exited: llm (terminated by SIGKILL; not expected)\n"
            "2026 INFO spawned: 'llm' with pid 2\n"
            "2026 INFO gave up: llm entered FATAL state, too many start retries too quickly\n"
        )
    follower.close()
    assert capsys.readouterr().out.splitlines() == [
        "llm              | ended (terminated by SIGKILL)",
        "llm              | restarting",
        "llm              | failed (it ended at each start; see its log file)",
    ]
    assert follower.take_restarted() == {"llm"}
    assert follower.take_restarted() == set()


def test_a_process_is_ready_and_later_ready_again(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(colours=False)
    console.process("llm", State.STARTING)
    console.process("llm", State.READY, 1.25)
    console.process("llm", State.READY, 2.0)
    assert capsys.readouterr().out.splitlines() == [
        "llm              | ready in 1.2 s",
        "llm              | ready again in 2.0 s",
    ]


@requirement("stack:console")
def test_json_logs_become_lines_without_ids_of_traces(capsys: pytest.CaptureFixture[str]) -> None:
    line = a_line(event="turn.completed", app="llm", tokens=40, trace_id="0af7", span_id="b7ad")
    Console(colours=False).log("llm", line)
    shown = capsys.readouterr().out
    assert "[info     ] turn.completed tokens=40" in shown
    assert "0af7" not in shown
    assert "\x1b" not in shown


@requirement("stack:console")
def test_fields_of_the_edge_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    line = {"time": "2026-11-27T18:28:44.859061880Z", "level": "WARN", "msg": "slow", "status": 200}
    Console(colours=False).log("edge", json.dumps(line))
    assert "[warn     ] slow status=200" in capsys.readouterr().out


@requirement("stack:console")
@pytest.mark.parametrize("logger", ["alembic.runtime.migration", "durabletask-worker"])
def test_messages_of_libraries_are_shown_from_warning_on(
    logger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(colours=False)
    console.log("llm", a_line(event="Registering", logger=logger))
    assert capsys.readouterr().out == ""
    console.log("llm", a_line(event="Refused", logger=logger, level="warning"))
    assert "Refused" in capsys.readouterr().out


@requirement("stack:console")
def test_at_debug_messages_of_libraries_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOCASO_LOG_LEVEL", "debug")
    Console(colours=False).log("llm", a_line(event="Registering", logger="alembic"))
    assert "Registering" in capsys.readouterr().out


@requirement("stack:console")
def test_a_traceback_and_broken_json_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console(colours=False)
    for line in ("Traceback (most recent call last):", '{"event": ', "{}", "[1]"):
        console.log("llm", line)
    assert [line.split("| ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "Traceback (most recent call last):",
        '{"event": ',
        "{}",
        "[1]",
    ]


@requirement("stack:console")
def test_each_line_of_an_exception_has_the_process_name(capsys: pytest.CaptureFixture[str]) -> None:
    Console(colours=False).log("llm", a_line(event="failed", exception="Traceback\n  line 1"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("llm              | ") for line in lines)


@requirement("stack:console")
def test_json_output_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = JsonConsole()
    log = a_line(event="turn.completed", app="llm")
    console.log("llm", log)
    console.log("llm", "plain text")
    console.process("llm", State.READY, 1.2345)
    console.report("stopping")
    console.building(BuildStatus(0.5, 60.0, "daprd", 1, 2))
    console.summary("ready", {"edge": "http://127.0.0.1"}, "steps")
    raw = capsys.readouterr().out.splitlines()
    lines = [json.loads(line) for line in raw]
    assert raw[0] == log
    assert (lines[1]["app"], lines[1]["event"]) == ("llm", "plain text")
    assert (lines[2]["event"], lines[2]["process"]) == ("process.ready", "llm")
    assert lines[2]["seconds"] == 1.234
    assert [line["event"] for line in lines[3:]] == ["stopping", "programs.building", "ready"]
    assert lines[5]["addresses"] == {"edge": "http://127.0.0.1"}


@requirement("stack:console")
def test_build_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(colours=False)
    for _ in range(100):
        console.building(BuildStatus(0.25, 300.0, "daprd (net/http)", 1, 5))
    assert capsys.readouterr().out.splitlines() == [
        "yocaso           | built 1 of 5 programs, 25%, about 5 min left: daprd (net/http)"
    ]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@requirement("stack:console")
@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [
        (_Terminal(), {}, True),
        (_Terminal(), {"NO_COLOR": "1"}, False),
        (_Terminal(), {"NO_COLOR": ""}, True),
        (_Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_follow_the_terminal_and_the_usual_variables(
    stream: io.StringIO, environ: dict[str, str], expected: bool
) -> None:
    assert wants_colours(stream, environ) is expected


@requirement("stack:console")
def test_output_that_is_no_terminal_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    console = open_console(as_json=False)
    assert type(console) is Console
    assert not console.colours
    assert not is_terminal(io.StringIO(), {})
