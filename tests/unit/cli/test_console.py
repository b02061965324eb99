"""Lines of logs, with names, over rotations; what the supervisor did, in plain words."""

from pathlib import Path

import pytest

from services.cli.console import Console, LogFollower


@pytest.fixture
def follower(tmp_path: Path) -> LogFollower:
    return LogFollower(
        Console(colours=False), {"llm": tmp_path / "llm.log"}, tmp_path / "supervisor.log"
    )


def test_only_whole_new_lines_are_shown_with_their_name(
    follower: LogFollower, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "llm.log"
    log.write_text("of yesterday\n")
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


def test_a_death_and_a_restart_are_said(
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
    said = [line.split("| ")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "llm ended (terminated by SIGKILL); it is started again",
        "llm was started again",
        "llm keeps ending, so it stays down; see its log",
    ]
