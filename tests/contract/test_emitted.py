"""What is emitted from the contracts is held to them."""

from pathlib import Path

import pytest

from services.contracts.emitted import emit


def test_what_is_written_is_found_as_it_was(tmp_path: Path) -> None:
    wanted = {tmp_path / "new" / "one.yaml": "1\n", tmp_path / "two.yaml": "2\n"}
    assert emit(wanted, []) == 0
    assert {path: path.read_text() for path in wanted} == wanted
    assert emit(wanted, ["--check"]) == 0


def test_a_check_names_what_is_missing_other_or_too_much_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {tmp_path / name: "right\n" for name in ("missing.yaml", "other.yaml", "same.yaml")}
    found = {"other.yaml": "wrong\n", "same.yaml": "right\n", "stale.yaml": "right\n"}
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    assert emit(wanted, ["--check"], tmp_path.glob("*.yaml")) == 1
    named = [line.split()[0].rpartition("/")[2] for line in capsys.readouterr().err.splitlines()]
    assert named == ["missing.yaml", "other.yaml", "stale.yaml"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == found
