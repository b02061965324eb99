"""Runs one test in a copy of the tree, and reads from its report why it failed."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from tests.mutants.table import Mutant
from tests.mutants.tree import Tree

SECONDS: Final = 300.0
"""Timeout of a run, beyond the test's own."""
PLUGINS: Final = (
    "pytest_asyncio.plugin",
    "pytest_socket",
    "pytest_timeout",
    "_hypothesis_pytestplugin",
)
"""What tests need; to load every plugin would take longer than most tests here."""
OPTIONS: Final = (
    *("-q", "--no-header", "-p", "no:cacheprovider"),
    *(option for name in PLUGINS for option in ("-p", name)),
)
ASSERTION: Final = re.compile(r"\s*(AssertionError|assert |Failed: DID NOT RAISE)")
TIMEOUT: Final = re.compile(r"Timeout|did not come within|no terminal event within")
"""Of pytest-timeout, `wait_until` and `StreamClient`."""


class Verdict(StrEnum):
    """What a run says about a mutant. Only KILLED is a kill."""

    PASSED = "passed"
    KILLED = "killed"
    TIMED_OUT = "timed out"
    BROKEN = "broken"
    """The test could not run or failed by an unexpected error: of import, collection, compilation, a fixture."""


@dataclass(frozen=True, slots=True)
class Result:
    """A verdict, and the first line of what was reported."""

    verdict: Verdict
    detail: str = ""


def run_tests(tree: Tree, *tests: str) -> Result:
    """Run tests by pytest: PASSED if all did."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", *OPTIONS, f"--junitxml={report}", *tests]
        output = _output(tree, command)
        if output is None:
            return Result(Verdict.TIMED_OUT, f"over {SECONDS:g} s")
        return verdict_of(report.read_text()) if report.exists() else _broken(output)


def run_go_test(tree: Tree, package: str, name: str) -> Result:
    """Run one test of a Go package."""
    command = ["go", "test", "-C", package, "-count=1", "-json", "-run", f"^{name}$", "."]
    output = _output(tree, command)
    return Result(Verdict.TIMED_OUT) if output is None else go_verdict_of(output, name)


def run(tree: Tree, mutant: Mutant) -> Result:
    """Run the test of a mutant."""
    if mutant.is_go:
        package, _, name = mutant.test.partition("::")
        return run_go_test(tree, package, name)
    return run_tests(tree, mutant.test)


def verdict_of(report: str) -> Result:
    """The verdict of a JUnit report: a timeout or an error outweighs failures, as it may be their cause."""
    suite = ElementTree.fromstring(report)
    errors = [each.get("message", "") for each in suite.iter("error")]
    failures = [each.get("message", "") for each in suite.iter("failure")]
    ran = sum(1 for _ in suite.iter("testcase"))
    if timeouts := [each for each in [*errors, *failures] if TIMEOUT.search(each)]:
        return Result(Verdict.TIMED_OUT, _line(timeouts[0]))
    others = [each for each in failures if not ASSERTION.match(each)]
    if errors or others or not ran or any(True for _ in suite.iter("skipped")):
        return Result(Verdict.BROKEN, _line([*errors, *others, "no test ran"][0]))
    return Result(Verdict.KILLED, _line(failures[0])) if failures else Result(Verdict.PASSED)


def go_verdict_of(output: str, name: str) -> Result:
    """The verdict of `go test -json`."""
    events = [_event(line) for line in output.splitlines()]
    ends = {each["Action"] for each in events if each.get("Test") == name}
    text = "".join(each.get("Output", "") for each in events if each.get("Test"))
    if "panic: " in text:
        verdict = Verdict.TIMED_OUT if "test timed out" in text else Verdict.BROKEN
        return Result(verdict, _line(text))
    if "fail" in ends:
        said = [each for each in text.splitlines() if "_test.go:" in each]
        return Result(Verdict.KILLED, said[0].strip() if said else "")
    return Result(Verdict.PASSED) if "pass" in ends else _broken(output)


def _event(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {"Action": "output"}
    return found if isinstance(found, dict) else {"Action": "output"}


def _output(tree: Tree, command: list[str]) -> str | None:
    """What a command printed; None if it took too long and was ended with its processes."""
    with subprocess.Popen(
        command,
        cwd=tree.root,
        env={**tree.environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=SECONDS)[0]
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise


def _broken(output: str) -> Result:
    lines = [line for line in output.splitlines() if line.strip()]
    return Result(Verdict.BROKEN, lines[-1][:200] if lines else "no output")


def _line(text: str) -> str:
    return next((line.strip()[:200] for line in text.splitlines() if line.strip()), "")
