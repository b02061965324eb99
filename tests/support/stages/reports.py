"""What JUnit reports say: counts of tests, and their seconds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True)
class Test:
    """A test of a report; `name` is that of pytest, `module` the dotted one."""

    __test__ = False  # no test class

    module: str
    name: str
    seconds: float

    @property
    def path(self) -> str:
        """`tests/unit/test_wait.py::test_name`; a class of tests stands between."""
        parts = self.module.split(".")
        file = [part for part in parts if not part[:1].isupper()]
        classes = parts[len(file) :]
        return "::".join(["/".join(file) + ".py", *classes, self.name])

    @property
    def file(self) -> str:
        return self.path.partition("::")[0]


@dataclass(frozen=True, slots=True)
class Report:
    """Counts and tests of a stage; `complete` is False if pytest wrote no report."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    tests: tuple[Test, ...] = field(default=())
    complete: bool = False

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a report; an empty one if the file is absent or broken."""
        try:
            root = ElementTree.parse(file).getroot()
        except (OSError, ElementTree.ParseError):
            return cls()
        suites = list(root.iter("testsuite"))
        total, failures, errors, skipped = (
            sum(int(suite.get(name, 0)) for suite in suites)
            for name in ("tests", "failures", "errors", "skipped")
        )
        failed = failures + errors
        tests = tuple(
            Test(case.get("classname", ""), case.get("name", ""), float(case.get("time", 0)))
            for case in root.iter("testcase")
        )
        return cls(total - failed - skipped, failed, skipped, tests, complete=True)
