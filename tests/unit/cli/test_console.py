"""Console output: log lines with process names, across log rotations, and restarts."""

from pathlib import Path

import pytest

from services.cli.console import Console, LogFollower


@pytest.fixture
def follower(tmp_path: Path) -> LogFollower:
    return LogFollower(
        Console(colours=False), {"llm": tmp_path / "llm.log"}, tmp_path / "supervisor.log"
    )


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
    messages = [line.split("| ")[1] for line in capsys.readouterr().out.splitlines()]
    assert messages == [
        "llm ended (terminated by SIGKILL); restarting it",
        "llm was restarted",
        "llm failed at each start and is not restarted; see its log file",
    ]
