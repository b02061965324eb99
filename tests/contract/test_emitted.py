"""The committed files are those emitted from the contracts."""

from pathlib import Path

import pytest

from services.codegen.__main__ import main
from services.codegen.files import find_differences, write
from tests.requirements import requirement


@requirement("access:chart", "access:policies", "edge:config", "kit:openapi")
def test_the_committed_files_are_what_the_contracts_emit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_written_files_have_no_differences(tmp_path: Path) -> None:
    wanted = {tmp_path / "new" / "one.yaml": "1\n", tmp_path / "two.yaml": "2\n"}
    write(wanted)
    assert {path: path.read_text() for path in wanted} == wanted
    assert find_differences(wanted) == []


def test_missing_changed_and_stale_files_are_found(tmp_path: Path) -> None:
    wanted = {tmp_path / name: "right\n" for name in ("missing.yaml", "other.yaml", "same.yaml")}
    found = {"other.yaml": "wrong\n", "same.yaml": "right\n", "stale.yaml": "right\n"}
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    names = [path.name for path in find_differences(wanted, tmp_path.glob("*.yaml"))]
    assert names == ["missing.yaml", "other.yaml", "stale.yaml"]
