"""Builds of real Go programs."""

import subprocess
from pathlib import Path

import pytest

from services.cli.stack.builds import Builds, BuildStatus, Program
from services.cli.stack.errors import StackError
from services.cli.stack.toolchain import GoProgram, Toolchain
from tests.requirements import requirement

MAIN = """package main

import "example.com/{name}/words"

func main() {{ print(words.Text) }}
"""


def a_program(folder: Path, name: str, main: str = MAIN) -> Program:
    """A module with a main package and one other package."""
    source = folder / name
    (source / "words").mkdir(parents=True)
    (source / "go.mod").write_text(f"module example.com/{name}\n\ngo 1.24\n")
    (source / "main.go").write_text(main.format(name=name))
    (source / "words" / "words.go").write_text(f'package words\n\nconst Text = "{folder}{name}"\n')

    def found(_: Toolchain, __: Path) -> GoProgram:
        return GoProgram(name, source, ".")

    return Program(name, folder / "bin" / name, found)


def said_by(program: Program) -> str:
    done = subprocess.run([program.target], capture_output=True, text=True, check=True)
    return done.stderr


@pytest.mark.timeout(120)
@requirement("stack:builds")
def test_programs_are_built_with_one_measure_of_progress(tmp_path: Path) -> None:
    lines: list[str] = []
    one, two = a_program(tmp_path, "one"), a_program(tmp_path, "two")
    builds = Builds([one, two], lines.append)
    before = builds.status()
    builds.wait()
    assert said_by(one) == f"{tmp_path}one"
    assert said_by(two) == f"{tmp_path}two"
    assert (before.fraction, before.done, before.total) == (0.0, 0, 2)
    after = builds.status()
    assert (round(after.fraction, 3), after.done, after.total) == (1.0, 2, 2)
    assert {line.split(" in ")[0] for line in lines} >= {"built one", "built two"}


@pytest.mark.timeout(120)
@requirement("stack:builds")
def test_progress_counts_packages_by_the_size_of_their_sources(tmp_path: Path) -> None:
    seen: list[BuildStatus] = []
    program = a_program(tmp_path, "sized")
    builds = Builds([program], lambda _: seen.append(builds.status()))
    builds.wait()
    assert [status.current for status in seen][:1] == ["starting the compilers"]
    assert seen[0].fraction < seen[-1].fraction
    assert seen[-1].seconds_left is not None


@pytest.mark.timeout(120)
@requirement("stack:builds")
def test_a_compile_error_is_shown_and_leaves_no_program(tmp_path: Path) -> None:
    broken = a_program(tmp_path, "broken", "package main\n\nfunc main() {{ print(missing) }}\n")
    whole = a_program(tmp_path, "whole")
    with pytest.raises(StackError, match=r"building broken failed.*[\s\S]*undefined: missing"):
        Builds([broken, whole], lambda _: None).wait()
    assert not broken.target.exists()
    assert not [each for each in (tmp_path / "bin").iterdir() if not each.name.endswith(".lock")][
        1:
    ]


@pytest.mark.timeout(120)
@requirement("stack:builds")
def test_a_built_program_is_not_built_again(tmp_path: Path) -> None:
    program, lines = a_program(tmp_path, "once"), list[str]()
    Builds([program], lambda _: None).wait()
    Builds([program], lines.append).wait()
    assert lines == []
