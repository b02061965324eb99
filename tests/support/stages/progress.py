"""How far a pytest run is: a plugin writes each test to a file as it runs, the runner reads the file.

`pytest -p tests.support.stages.progress` with the file's path in YOCASO_PROGRESS.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

FILE: Final = "YOCASO_PROGRESS"
PLUGIN: Final = "tests.support.stages.progress"
TOTAL, BEGUN, FAILED, ENDED = "total", "begun", "failed", "ended"


@dataclass(slots=True)
class Progress:
    """Tests done of all chosen ones, those that failed, and the one that runs."""

    total: int = 0
    done: int = 0
    failed: list[str] = field(default_factory=list)
    current: str = ""

    @classmethod
    def read(cls, file: Path) -> "Progress":
        """Read what the plugin has written; nothing before the tests are collected."""
        progress = cls()
        if not file.exists():
            return progress
        for line in file.read_text().splitlines():
            match line.split(" ", 1):
                case [word, count] if word == TOTAL and count.isdigit():
                    progress.total = int(count)
                case [word, test] if word == BEGUN:
                    progress.current = test
                case [word, test] if word == FAILED and test not in progress.failed:
                    progress.failed.append(test)
                case [word, _] if word == ENDED:
                    progress.done += 1
                    progress.current = ""
                case _:
                    continue  # the last line may be half written
        return progress


def _write(word: str, text: object) -> None:
    if path := os.environ.get(FILE):
        with Path(path).open("a") as file:
            file.write(f"{word} {text}\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    _write(TOTAL, len(session.items))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _write(BEGUN, item.nodeid)
    result = yield
    _write(ENDED, item.nodeid)
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _write(FAILED, report.nodeid)
