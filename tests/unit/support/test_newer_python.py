"""The interpreter of the newer Python is found where it runs, not where only its name is."""

from pathlib import Path

import pytest

from tests.support.newer_python import find_interpreter


def program(path: Path, answer: str, code: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("YOCASO_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def test_none_is_found_where_none_is(folder: Path) -> None:
    assert find_interpreter("3.13") is None


def test_a_shim_without_a_version_behind_it_is_passed_over(folder: Path) -> None:
    program(folder / "path" / "python3.13", "command not found", 127)
    installed = program(
        folder / "pyenv" / "versions" / "3.13.0" / "bin" / "python3.13", "Python 3.13.0"
    )
    assert find_interpreter("3.13") == installed


def test_the_one_that_is_named_is_taken_if_it_has_the_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = program(folder / "named", "Python 3.13.9")
    on_path = program(folder / "path" / "python3.13", "Python 3.13.2")
    monkeypatch.setenv("YOCASO_PYTHON", str(named))
    assert find_interpreter("3.13") == named
    program(named, "Python 3.11.7")
    assert find_interpreter("3.13") == on_path
