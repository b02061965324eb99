"""The state folder: pid files, secrets, the lock."""

import os
import stat
from pathlib import Path

import pytest

from services.cli.stack.errors import StackError
from services.cli.stack.launcher import start_time, write_pid_file
from services.cli.stack.state import StateFolder


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


def test_a_running_process_with_a_pid_file_is_a_leftover(state: StateFolder) -> None:
    write_pid_file(str(state.pid_file("llm")), os.getpid())
    assert state.leftovers() == {"llm": os.getpid()}


def test_a_reused_pid_is_not_a_leftover(state: StateFolder) -> None:
    state.pid_file("llm").write_text(f"{os.getpid()} {int(start_time(os.getpid())) - 1}\n")
    assert state.leftovers() == {}


@pytest.mark.parametrize("text", ["", "x y", "123456789 1", str(os.getpid())])
def test_an_invalid_pid_file_is_ignored(state: StateFolder, text: str) -> None:
    state.pid_file("llm").write_text(text)
    assert state.leftovers() == {}


def test_the_supervisor_comes_first_among_leftovers(state: StateFolder) -> None:
    for name in ("auth", "supervisor", "valkey"):
        write_pid_file(str(state.pid_file(name)), os.getpid())
    assert next(iter(state.leftovers())) == "supervisor"


def test_secrets_are_generated_once_and_readable_only_by_their_owner(state: StateFolder) -> None:
    values = state.load_secrets()
    first = state.secret(values, "llmAppToken")
    state.save_secrets(values)
    assert state.secret(state.load_secrets(), "llmAppToken") == first
    assert len(first) == 64
    assert stat.S_IMODE(state.secrets_file.stat().st_mode) == 0o600


def test_locking_a_locked_folder_fails_with_the_pid_of_its_holder(state: StateFolder) -> None:
    state.lock()
    with pytest.raises(StackError, match=str(os.getpid())):
        StateFolder(state.path).lock()
    state.unlock()
    again = StateFolder(state.path)
    again.lock()
    again.unlock()
