"""What a failed test says about the processes of its platform: the end of their logs, and the stacks of a hang.

A conftest imports `pytest_runtest_makereport`; platforms are found among the test's fixtures.
"""

import contextlib
import os
import re
import signal
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from services.cli.stack import Stack, StackError
from services.cli.stack.process import Stage
from services.cli.stack.state import send
from services.cli.stack.waiting import wait_until
from services.kit.telemetry.stacks import STACKS_VARIABLE

LINES: Final = 12
"""Lines shown of each process; those that tell of an error come first."""
LINE_CHARACTERS: Final = 300
STACK_CHARACTERS: Final = 10_000
GO_CALLS: Final = 4
READ_BYTES: Final = 256 * 1024
STACK_SECONDS: Final = 3.0
READY_SECONDS: Final = 30.0
HANGS: Final = re.compile(
    r"Timeout|timed out|TimeoutError|did not come within|no terminal event|no hit of"
)
ERRORS: Final = re.compile(
    r'level[="\s:]+"?(error|fatal|warn)|"level": ?"(error|warning)|\b(ERROR|FATAL|PANIC|panic:|Traceback)\b'
)

os.environ.setdefault(STACKS_VARIABLE, "1")  # the processes of the tests inherit it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the state of the processes to the report of a failed phase."""
    report = yield
    if report.failed and call.when != "teardown":
        is_hang = bool(HANGS.search(report.longreprtext[-4000:]))
        for stack in _stacks_of(item):
            report.sections += _sections(stack, with_stacks=is_hang)
    return report


def _stacks_of(item: pytest.Item) -> list[Stack]:
    """The running stacks among the fixtures of a test, also those that a fixture has as `stack`."""
    found: list[Stack] = []
    for value in getattr(item, "funcargs", {}).values():
        stack = value if isinstance(value, Stack) else getattr(value, "stack", None)
        if isinstance(stack, Stack) and stack.state.is_locked and stack not in found:
            found.append(stack)
    return found


def _sections(stack: Stack, *, with_stacks: bool) -> Iterator[tuple[str, str]]:
    yield "state folder, kept", str(stack.state.path)
    names = [*stack.names, "supervisor"]
    before = {name: stack.log(name).stat().st_size for name in names if stack.log(name).exists()}
    for name in before:
        yield f"log of {name}{_status(stack, name)}", log_end(stack.log(name))
    if with_stacks:
        asked = [name for name in stack.names if name in before and _ask_for_stacks(stack, name)]
        _await_output(stack, {name: before[name] for name in asked})
        for name in asked:
            yield f"stacks of {name}", _stacks(stack.log(name), before[name])


def _status(stack: Stack, name: str) -> str:
    if name not in stack.names:
        return ""
    pid = stack.state.leftovers().get(name)
    if pid is None:
        return " (does not run)"
    return f" ({psutil.Process(pid).status()})" if psutil.pid_exists(pid) else " (ended)"


def log_end(log: Path, lines: int = LINES) -> str:
    """The last lines that tell of errors and warnings, then the last lines of all; each is cut."""
    read = _tail(log)
    errors = [line for line in read if ERRORS.search(line)][-lines:]
    latest = [line for line in read[-lines:] if line not in errors]
    return "\n".join(line[:LINE_CHARACTERS] for line in [*errors, "…", *latest])


def _tail(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - READ_BYTES))
        return file.read().decode(errors="replace").splitlines()


def _ask_for_stacks(stack: Stack, name: str) -> bool:
    """Have a process print its stacks: an app that handles SIGUSR1, or by SIGQUIT a Go program, which it ends."""
    spec, pid = stack.spec(name), stack.state.leftovers().get(name)
    if pid is None or spec.stage is Stage.INFRA:
        return False
    is_python = Path(spec.argv[0]).name.startswith("python")
    number = signal.SIGUSR1 if is_python else signal.SIGQUIT
    if not _handles(pid, number):
        return False
    send(pid, number)
    return True


def _handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of a signal (Linux only)."""
    with contextlib.suppress(OSError):
        caught = re.search(r"^SigCgt:\s*(\S+)$", Path(f"/proc/{pid}/status").read_text(), re.M)
        return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)
    return False


def _await_output(stack: Stack, before: dict[str, int]) -> None:
    """Wait until these logs have grown and stand still, and until ended programs run again."""
    sizes: dict[str, int] = {}

    def is_written() -> bool:
        nonlocal sizes
        last, sizes = sizes, {name: stack.log(name).stat().st_size for name in before}
        return sizes == last and all(sizes[name] > size for name, size in before.items())

    with contextlib.suppress(StackError):
        wait_until(is_written, STACK_SECONDS, "stacks to be printed", interval=0.1)
    with contextlib.suppress(StackError):
        stack.wait_ready(*before, seconds=READY_SECONDS)


def _stacks(log: Path, size: int) -> str:
    """What a log has gained: a goroutine dump in short, anything else as it is, cut."""
    with log.open("rb") as file:
        file.seek(size)
        text = file.read().decode(errors="replace")
    return (goroutines(text) or text)[:STACK_CHARACTERS]


def goroutines(dump: str) -> str:
    """A line for each different stack of a Go program's dump: how many, their state, their innermost functions."""
    found: Counter[str] = Counter()
    for block in dump.split("\n\n"):
        head = re.match(r"goroutine \d+ [^\[\n]*\[([^\]]+)\]:\n", block)
        if head is None:
            continue
        state = head[1].partition(",")[0]
        calls = re.findall(
            r"^(?!runtime\.|created by)([\w./*()\[\]-]+)\(", block[head.end() :], re.M
        )
        found[f"[{state}] " + " < ".join(calls[:GO_CALLS])] += 1
    return "\n".join(f"{number} × {stack}" for stack, number in found.most_common())
