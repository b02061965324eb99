"""Judges of a history: pure functions that return what is wrong, nothing when all is well."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.support.history import Operation


def check_append_log(
    final: Sequence[Hashable],
    appends: Iterable[Operation],
    reads: Iterable[Sequence[Hashable]] = (),
) -> list[str]:
    """One append-only log: unique elements, nothing acknowledged lost, nothing from nowhere, real-time order.

    Every read is a prefix of the final log. If an append ended before another began, it comes first.
    """
    done = list(appends)
    return [
        *_uniqueness(final),
        *_membership(final, done),
        *_real_time_order(final, done),
        *(
            f"a read of {len(read)} is no prefix"
            for read in reads
            if list(final[: len(read)]) != list(read)
        ),
    ]


def _uniqueness(final: Sequence[Hashable]) -> list[str]:
    return [
        f"{element!r} is there {count} times"
        for element, count in Counter(final).items()
        if count > 1
    ]


def _membership(final: Sequence[Hashable], appends: Sequence[Operation]) -> list[str]:
    found = set(final)
    lost = [each.value for each in appends if each.outcome == "ok" and each.value not in found]
    refused = [each.value for each in appends if each.outcome == "fail" and each.value in found]
    unexpected = found - {each.value for each in appends}
    return [
        *(f"{value!r} was acknowledged and is lost" for value in lost),
        *(f"{value!r} was refused and is there" for value in refused),
        *(f"{value!r} was never appended" for value in sorted(unexpected, key=repr)),
    ]


def _real_time_order(final: Sequence[Hashable], appends: Sequence[Operation]) -> list[str]:
    by_value = {each.value: each for each in appends}
    problems: list[str] = []
    latest_begin, latest = -1, None
    # Walking the log, nobody may have ended before something earlier in the log even began.
    for element in final:
        operation = by_value.get(element)
        if operation is None:
            continue
        if operation.outcome == "ok" and operation.end is not None and operation.end < latest_begin:
            problems.append(f"{element!r} ended before {latest!r} began, and comes after it")
        if operation.begin > latest_begin:
            latest_begin, latest = operation.begin, element
    return problems


@dataclass(frozen=True, slots=True)
class SetReport:
    """What became of a set of elements."""

    lost: frozenset[Any]
    duplicated: frozenset[Any]
    unexpected: frozenset[Any]
    recovered: frozenset[Any]

    @property
    def problems(self) -> list[str]:
        """What is wrong; a recovered element (unknown outcome, but there) is not."""
        named = {"lost": self.lost, "duplicated": self.duplicated, "unexpected": self.unexpected}
        return [f"{name}: {sorted(found, key=repr)}" for name, found in named.items() if found]


def check_set(final: Iterable[Hashable], adds: Iterable[Operation]) -> SetReport:
    """Elements lost, duplicated, from nowhere, and those of unknown outcome that turn out to be there."""
    counts = Counter(final)
    done = list(adds)
    acknowledged = {each.value for each in done if each.outcome == "ok"}
    possible = {each.value for each in done if each.outcome != "fail"}
    return SetReport(
        lost=frozenset(acknowledged - counts.keys()),
        duplicated=frozenset(element for element, count in counts.items() if count > 1),
        unexpected=frozenset(counts.keys() - possible),
        recovered=frozenset((possible - acknowledged) & counts.keys()),
    )


def check_statuses(
    seen: Sequence[str],
    allowed: Mapping[str, Iterable[str]],
    terminal: Iterable[str],
    *,
    ended: bool = True,
) -> list[str]:
    """One thing's statuses in the order seen: only allowed edges, at most one terminal, which is never left.

    Seeing the same status twice is no edge. With `ended`, the last one must be terminal.
    """
    ends = frozenset(terminal)
    edges = {status: frozenset(after) for status, after in allowed.items()}
    problems: list[str] = []
    for before, after in pairwise(seen):
        if before == after:
            continue
        if before in ends:
            problems.append(f"{after} after the terminal {before}")
        elif after not in edges.get(before, frozenset()):
            problems.append(f"{before} may not become {after}")
    if ended and (not seen or seen[-1] not in ends):
        problems.append(f"not terminal: {seen[-1] if seen else 'nothing seen'}")
    return problems


def check_seqs(seqs: Sequence[int], first: int = 1) -> list[str]:
    """Seqs are first, first + 1, … without a gap or a repeat."""
    return [
        f"seq {found} where {expected} belongs"
        for expected, found in enumerate(seqs, first)
        if found != expected
    ][:5]


def check_ledger(
    entries: Iterable[tuple[Hashable, float]], balance: float, *, floor: float | None = None
) -> list[str]:
    """A ledger: one entry per key, the sum is the balance, and never below the floor on the way."""
    problems: list[str] = []
    keys: Counter[Hashable] = Counter()
    total = 0.0
    for key, amount in entries:
        keys[key] += 1
        total += amount
        if floor is not None and total < floor:
            problems.append(f"{total:g} after {key!r} is below {floor:g}")
    problems += [f"{key!r} is booked {count} times" for key, count in keys.items() if count > 1]
    if abs(total - balance) > 1e-9 * max(1.0, abs(balance)):
        problems.append(f"the entries make {total:g}, the balance says {balance:g}")
    return problems


def check_effects(effects: Iterable[Hashable], asked: Iterable[Hashable]) -> list[str]:
    """At most one effect per key, and none that nobody asked for."""
    counts = Counter(effects)
    unasked = counts.keys() - set(asked)
    return [
        *(f"{key!r} took effect {count} times" for key, count in counts.items() if count > 1),
        *(f"nobody asked for {key!r}" for key in sorted(unasked, key=repr)),
    ]
