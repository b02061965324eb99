"""JUnit reports give counts and seconds; a broken one gives none."""

from pathlib import Path

from tests.support.stages.durations import add_durations, read_durations
from tests.support.stages.progress import Progress
from tests.support.stages.reports import Report

REPORT = """<?xml version="1.0"?>
<testsuites><testsuite tests="5" failures="1" errors="1" skipped="1">
<testcase classname="tests.unit.test_a" name="test_one[x]" time="1.5"/>
<testcase classname="tests.unit.test_a.TestTurns" name="runTest" time="0.5"/>
<testcase classname="tests.e2e.test_b" name="test_two" time="3"/>
</testsuite></testsuites>
"""


def test_counts_and_seconds_are_read(tmp_path: Path) -> None:
    file = tmp_path / "report.xml"
    file.write_text(REPORT)
    report = Report.read(file)
    assert (report.passed, report.failed, report.skipped) == (2, 2, 1)
    assert report.complete
    assert [(test.path, test.seconds) for test in report.tests] == [
        ("tests/unit/test_a.py::test_one[x]", 1.5),
        ("tests/unit/test_a.py::TestTurns::runTest", 0.5),
        ("tests/e2e/test_b.py::test_two", 3),
    ]


def test_an_absent_or_half_written_report_is_incomplete(tmp_path: Path) -> None:
    half = tmp_path / "half.xml"
    half.write_text(REPORT[:100])
    assert not Report.read(half).complete
    assert Report.read(tmp_path / "absent.xml") == Report()


def test_seconds_of_files_are_kept_and_a_part_of_a_file_does_not_shrink_them(
    tmp_path: Path,
) -> None:
    file, kept = tmp_path / "report.xml", tmp_path / "cache" / "seconds.json"
    file.write_text(REPORT)
    add_durations([Report.read(file)], kept)
    file.write_text(REPORT.replace("1.5", "0.1"))
    add_durations([Report.read(file)], kept)
    assert read_durations(kept) == {"tests/unit/test_a.py": 2.0, "tests/e2e/test_b.py": 3.0}


def test_a_broken_file_of_seconds_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "seconds.json"
    broken.write_text("{")
    assert read_durations(broken) == {}


def test_a_half_written_line_of_progress_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    file.write_text("total 3\nbegun test_a\nended test_a\nbegun test_b\nfai")
    assert Progress.read(file) == Progress(total=3, done=1, current="test_b")
