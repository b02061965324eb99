"""Which e2e tests run against a platform that somebody started."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import requirement
from tests.support.host_platform import runs_on_host

PLUGIN = "tests.support.host_platform"


@pytest.mark.parametrize(
    ("fixtures", "runs"),
    [
        (["alice", "platform"], True),
        (["alice", "platform", "own_platform"], False),
        (["plain"], False),
        ([], False),
    ],
)
def test_a_test_runs_on_the_host_if_it_needs_only_edge_and_tokens(
    fixtures: list[str], runs: bool
) -> None:
    assert runs_on_host(fixtures) is runs


@requirement("gates:host-platform")
def test_tests_that_need_their_own_platform_are_counted_and_those_of_other_folders_run(
    tmp_path: Path,
) -> None:
    for name in ("e2e", "unit"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"test_{name}.py").write_text(
            "import pytest\n"
            "@pytest.fixture\ndef own_platform(): raise AssertionError\n"
            "@pytest.fixture\ndef platform(): pass\n"
            "def test_any(platform): pass\n"
            "def test_own(platform, own_platform): pass\n"
            "def test_alone(): pass\n"
        )
    ran = run(tmp_path, "--platform=host")
    assert "2 tests need a platform of their own" in ran
    assert "1 error" in ran  # that of the unit test, whose fixture is not the platform's
    assert "3 passed" in ran
    assert "need a platform of their own" not in run(tmp_path)


def run(folder: Path, *options: str) -> str:
    plugins = ("-p", "no:cacheprovider", "-p", PLUGIN)
    command = (
        sys.executable,
        "-m",
        "pytest",
        *plugins,
        f"--rootdir={folder}",
        *options,
        str(folder),
    )
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr
