"""The race detector is used where a C compiler is installed; elsewhere the output says that it is not."""

from pathlib import Path

import pytest

from tests.requirements import requirement
from tests.support.go_tests import WITHOUT, main, race_flags

pytestmark = pytest.mark.timeout(120)  # a cold cache has no standard library with the detector


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A Go module whose test writes a variable from two goroutines."""
    (tmp_path / "go.mod").write_text("module races\n\ngo 1.26\n")
    (tmp_path / "races_test.go").write_text(
        'package races\n\nimport "testing"\n\n'
        "func TestOf(t *testing.T) {\n\tdone, shared := make(chan bool), 0\n"
        "\tgo func() { shared++; done <- true }()\n\tshared++\n\t<-done\n\t_ = shared\n}\n"
    )
    return tmp_path


@requirement("gates:race")
def test_without_a_compiler_the_tests_run_and_the_output_says_what_is_missing(
    module: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", str(module / "no-compiler"))
    assert race_flags() == ()
    assert main([str(module)]) == 0
    assert WITHOUT in capfd.readouterr().out


@requirement("gates:race")
def test_with_a_compiler_a_race_fails_the_tests(
    module: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = main([str(module)])
    output = capfd.readouterr().out
    assert (found, "DATA RACE" in output) == (1, True) if race_flags() else (0, False)
    assert (WITHOUT in output) is not bool(race_flags())
