"""`poe mutants [NAME…]`: break each invariant on purpose; exit code 1 if the named test of a mutant does not fail.

Each mutant is applied in a temporary copy of the tree. First, all named tests must pass there without a mutant.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Final

from tests.mutants.table import MUTANTS, Mutant
from tests.mutants.tree import Tree
from tests.mutants.verdicts import Verdict, run, run_tests

AT_ONCE: Final = 2
"""Of the quick ones; tests with servers share ports, so they run one at a time."""
OUTCOMES: Final = {Verdict.KILLED: "killed", Verdict.PASSED: "SURVIVED"}


def main() -> int:
    """Run the chosen mutants, print a line for each, and return the exit code."""
    mutants = _chosen()
    began = time.monotonic()
    trees: SimpleQueue[Tree] = SimpleQueue()
    with ExitStack() as exits:
        for _ in range(AT_ONCE):
            trees.put(exits.enter_context(Tree.copied()))
        if not _pass_without_mutant(trees, mutants):
            return 1
        quick = [each for each in mutants if each.is_quick]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            killed = list(pool.map(lambda each: _is_killed(trees, each), quick))
        killed += [_is_killed(trees, each) for each in mutants if not each.is_quick]
    print(f"{len(mutants)} mutants, {sum(killed)} killed in {time.monotonic() - began:.0f} s")
    return 0 if all(killed) else 1


def _chosen() -> list[Mutant]:
    parser = argparse.ArgumentParser(prog="poe mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants or invariants; else all")
    parser.add_argument("--quick", action="store_true", help="those of unit tests")
    chosen = parser.parse_args()
    known = {name for each in MUTANTS for name in (each.name, each.invariant)}
    if unknown := sorted({*chosen.names} - known):
        parser.error(f"no such mutant: {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    return [
        each
        for each in MUTANTS
        if (not chosen.names or {each.name, each.invariant} & {*chosen.names})
        and (each.is_quick or not chosen.quick)
    ]


def _pass_without_mutant(trees: "SimpleQueue[Tree]", mutants: Sequence[Mutant]) -> bool:
    """Whether every named test passes in a copy as it is; a test that fails anyway kills nothing."""
    began, tree = time.monotonic(), trees.get()
    tests = sorted({each.test for each in mutants if not each.is_go})
    results = [run_tests(tree, *tests)] if tests else []
    results += [run(tree, each) for each in mutants if each.is_go]
    trees.put(tree)
    failed = [each for each in results if each.verdict is not Verdict.PASSED]
    for each in failed:
        print(f"without a mutant: {each.verdict}: {each.detail}")
    if not failed:
        print(f"the tests pass without a mutant ({time.monotonic() - began:.0f} s)", flush=True)
    return not failed


def _is_killed(trees: "SimpleQueue[Tree]", mutant: Mutant) -> bool:
    """Run one mutant and print its line."""
    began, tree = time.monotonic(), trees.get()
    try:
        with tree.mutated(mutant):
            result = run(tree, mutant)
    finally:
        trees.put(tree)
    outcome = OUTCOMES.get(result.verdict, f"NO KILL, {result.verdict}: {result.detail}")
    seconds = time.monotonic() - began
    line = f"{outcome:<8} {seconds:5.1f} s  {mutant.invariant}: {mutant.name}  [{mutant.test}]"
    print(line, flush=True)
    return result.verdict is Verdict.KILLED


if __name__ == "__main__":
    raise SystemExit(main())
