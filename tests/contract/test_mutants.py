"""The table of mutants is right: each text is in its file once, each test exists, each invariant has a mutant."""

import ast
import re
from collections import Counter

import pytest

from tests.contract.sources import ROOT
from tests.mutants.table import INVARIANTS, MUTANTS, Mutant
from tests.mutants.tree import NotApplicable, Tree, mutated_text
from tests.mutants.verdicts import Verdict, go_verdict_of, verdict_of
from tests.requirements import requirement

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)


@requirement("gates:mutants")
def test_every_invariant_has_a_mutant_and_every_mutant_an_invariant() -> None:
    assert {each.invariant for each in MUTANTS} == INVARIANTS.keys()
    assert [
        name for name, count in Counter(each.name for each in MUTANTS).items() if count > 1
    ] == []


@requirement("gates:mutants")
@each_mutant
def test_a_mutant_fits_its_file_and_is_still_a_program(mutant: Mutant) -> None:
    original = (ROOT / mutant.file).read_text()
    changed = mutated_text(mutant, original)
    assert changed != original
    if not mutant.is_go:
        ast.parse(changed)


@each_mutant
def test_the_test_of_a_mutant_exists(mutant: Mutant) -> None:
    place, _, name = mutant.test.partition("::")
    if mutant.is_go:
        sources = [path.read_text() for path in (ROOT / place).glob("*_test.go")]
        assert any(re.search(rf"^func {name}\(", each, re.MULTILINE) for each in sources)
    else:
        tree = ast.parse((ROOT / place).read_text())
        functions = (
            each for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        )
        assert name in {each.name for each in functions}


def test_a_text_that_is_missing_or_ambiguous_is_refused() -> None:
    mutant = MUTANTS[0]
    for original in ("", mutant.old * 2):
        with pytest.raises(NotApplicable, match=mutant.name):
            mutated_text(mutant, original)


def test_a_mutant_is_applied_in_the_copy_for_the_duration_of_the_block(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    mutant = MUTANTS[0]
    tree = Tree(tmp_path_factory.mktemp("tree"))
    copy = tree.root / mutant.file
    copy.parent.mkdir(parents=True)
    original = (ROOT / mutant.file).read_text()
    copy.write_text(original)
    with tree.mutated(mutant):
        assert copy.read_text() == mutated_text(mutant, original)
    assert copy.read_text() == original
    assert (ROOT / mutant.file).read_text() == original


def report(*cases: str) -> str:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


def case(inner: str = "") -> str:
    return f'<testcase name="test">{inner}</testcase>'


def failure(message: str) -> str:
    return case(f'<failure message="{message}"/>')


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (report(case()), Verdict.PASSED),
        (report(case(), failure("assert 1 == 2")), Verdict.KILLED),
        (report(failure("AssertionError: assert []")), Verdict.KILLED),
        (report(failure("Failed: DID NOT RAISE &lt;class 'X'&gt;")), Verdict.KILLED),
        (report(failure("Failed: Timeout (&gt;10.0s) from pytest-timeout.")), Verdict.TIMED_OUT),
        (report(failure("AssertionError: it did not come within 10 s")), Verdict.TIMED_OUT),
        (report(failure("assert 1"), failure("Failed: Timeout (&gt;1s)")), Verdict.TIMED_OUT),
        (report(failure("NameError: name 'x' is not defined")), Verdict.BROKEN),
        (report(case('<error message="collection failure"/>')), Verdict.BROKEN),
        (report(failure("assert 1"), case('<error message="at teardown"/>')), Verdict.BROKEN),
        (report(case("<skipped/>")), Verdict.BROKEN),
        (report(), Verdict.BROKEN),
    ],
)
def test_only_an_assertion_that_fails_is_a_kill(found: str, verdict: Verdict) -> None:
    assert verdict_of(found).verdict is verdict


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        (['{"Action":"pass","Test":"TestX"}'], Verdict.PASSED),
        (
            [
                '{"Action":"output","Test":"TestX","Output":"    x_test.go:3: passed on"}',
                '{"Action":"fail","Test":"TestX"}',
            ],
            Verdict.KILLED,
        ),
        (
            [
                '{"Action":"output","Test":"TestX","Output":"panic: test timed out after 1s"}',
                '{"Action":"fail","Test":"TestX"}',
            ],
            Verdict.TIMED_OUT,
        ),
        (
            [
                '{"Action":"output","Test":"TestX","Output":"panic: nil map"}',
                '{"Action":"fail","Test":"TestX"}',
            ],
            Verdict.BROKEN,
        ),
        (["./request.go:3:1: syntax error", '{"Action":"fail"}'], Verdict.BROKEN),
        (['{"Action":"fail","Test":"TestY"}'], Verdict.BROKEN),
    ],
)
def test_only_an_error_of_the_named_go_test_is_a_kill(lines: list[str], verdict: Verdict) -> None:
    assert go_verdict_of("\n".join(lines), "TestX").verdict is verdict
