"""What a run prints at its end: time per stage against its budget, the slowest tests, what failed, the totals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tests.support.stages.running import Result

SLOWEST: Final = 15


def is_late(result: Result, limits: Mapping[str, int]) -> bool:
    """Whether a stage took longer than its budget."""
    limit = limits.get(result.stage.name)
    return result.begun and limit is not None and result.seconds > limit


def failed_stages(results: Sequence[Result], limits: Mapping[str, int]) -> list[str]:
    """Names of stages that failed, were not run, or took longer than their budget."""
    return [each.stage.name for each in results if each.problem or is_late(each, limits)]


def summary(results: Sequence[Result], limits: Mapping[str, int], seconds: float) -> Iterator[str]:
    """The lines of the summary; `limits` are the budgets by stage, `seconds` those of the whole run."""
    if len(results) > 1:
        yield from _table(results, limits)
        yield from _slowest(results)
    failed = failed_stages(results, limits)
    if failed:
        yield f"stages that failed: {', '.join(failed)}"
    reports = [result.report for result in results]
    counts = {
        "passed": sum(report.passed for report in reports),
        "failed": sum(report.failed for report in reports),
        "skipped": sum(report.skipped for report in reports),
        "stages failed": len(failed),
    }
    yield f"{', '.join(f'{number} {name}' for name, number in counts.items())} in {seconds:.0f}s"


def _table(results: Sequence[Result], limits: Mapping[str, int]) -> Iterator[str]:
    yield f"{'stage':<26}{'seconds':>9}{'budget':>9}{'tests':>9}  verdict"
    for result in sorted(results, key=lambda each: -each.seconds):
        verdict = result.verdict
        if is_late(result, limits):
            verdict = f"{result.problem}, over its budget".removeprefix(", ")
        took = f"{result.seconds:.1f}" if result.begun else ""
        budget = limits.get(result.stage.name, "")
        tests = len(result.report.tests) or ""
        yield f"{result.stage.name:<26}{took:>9}{budget:>9}{tests:>9}  {verdict}"


def _slowest(results: Sequence[Result]) -> Iterator[str]:
    tests = [test for result in results for test in result.report.tests]
    if tests:
        yield f"the {SLOWEST} slowest tests, each with the fixtures that it was the first to use:"
    for test in sorted(tests, key=lambda each: -each.seconds)[:SLOWEST]:
        yield f"{test.seconds:>9.1f} s  {test.path}"
