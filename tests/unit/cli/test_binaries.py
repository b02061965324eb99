"""Programs: found on this machine, or built once."""

import os
import threading
from pathlib import Path

import pytest

from services.cli.stack.binaries import Binaries, source_hash
from services.cli.stack.errors import StackError


def a_fake_go(folder: Path) -> Path:
    """A `go` that lists one package, counts its builds and writes a file as the program."""
    go = folder / "go"
    go.write_text(
        "#!/bin/sh\n"
        "if [ \"$1\" = list ]; then printf 'yocaso/edge\\t/\\ttrue\\tfalse\\tmain.go\\n'; exit; fi\n"
        f'echo build >> "{folder}/builds"\n'
        'while [ "$1" != -o ]; do shift; done\n'
        'printf program > "$2"\n'
    )
    go.chmod(0o755)
    return go


@pytest.fixture
def edge_source(tmp_path: Path) -> Path:
    source = tmp_path / "edge"
    source.mkdir()
    (source / "main.go").write_text("package main\n")
    return source


@pytest.fixture
def binaries(tmp_path: Path, edge_source: Path, monkeypatch: pytest.MonkeyPatch) -> Binaries:
    a_fake_go(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    return Binaries(tmp_path / "cache", edge_source, lambda _: None)


def test_a_program_is_built_once(binaries: Binaries, tmp_path: Path) -> None:
    assert binaries.program("edge") == binaries.program("edge")
    assert (tmp_path / "builds").read_text().count("build") == 1


def test_concurrent_commands_build_a_program_once(binaries: Binaries, tmp_path: Path) -> None:
    threads = [threading.Thread(target=binaries.program, args=("edge",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "builds").read_text().count("build") == 1


def test_changed_sources_build_another_program(binaries: Binaries, edge_source: Path) -> None:
    before = binaries.program("edge")
    (edge_source / "main.go").write_text("package main // changed\n")
    assert binaries.program("edge") != before


def test_a_changed_go_test_does_not_change_the_hash(edge_source: Path) -> None:
    before = source_hash(edge_source)
    (edge_source / "main_test.go").write_text("package main\n")
    (edge_source / "testdata").mkdir()
    (edge_source / "testdata" / "corpus").write_text("go test fuzz v1\n")
    assert source_hash(edge_source) == before


def test_a_failed_build_leaves_no_program(binaries: Binaries, tmp_path: Path) -> None:
    (tmp_path / "go").write_text("#!/bin/sh\necho 'no such package' >&2\nexit 1\n")
    with pytest.raises(StackError, match="no such package"):
        binaries.program("edge")
    assert "edge" in binaries.missing()


def test_without_go_the_error_names_the_download_page(
    binaries: Binaries, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(StackError, match=r"go\.dev"):
        binaries.program("edge")


@pytest.mark.parametrize(
    ("version", "used"), [("1.18.0", True), ("v1.19.2", True), ("1.17.9", False), ("edge", False)]
)
def test_an_installed_daprd_is_used_from_version_1_18(
    binaries: Binaries, tmp_path: Path, version: str, used: bool
) -> None:
    daprd = tmp_path / "daprd"
    daprd.write_text(f"#!/bin/sh\necho {version}\n")
    daprd.chmod(0o755)
    assert ("daprd" in binaries.missing()) is not used
