"""Checkers: pure functions that return the violations found in a final state."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from services.contracts.llm.turns import TurnStatus
from tests.support.history import Operation

MIN_OK_RATE: Final = 0.2
"""The least share of attempts that must be answered while faults are injected; with less a run shows nothing."""
ENDS: Final = frozenset(status for status in TurnStatus if status.is_terminal)
LATER_STATUSES: Final[Mapping[str, frozenset[str]]] = {
    TurnStatus.QUEUED: ENDS | {TurnStatus.RUNNING},
    TurnStatus.RUNNING: ENDS,
    **dict.fromkeys(ENDS, frozenset()),
}
"""What may follow each status of a turn, also when a reader missed those between."""


def check_append_log(final: Sequence[str], appends: Collection[Operation]) -> list[str]:
    """An append-only log has the elements of `check_set`, ordered by real time: one that ended before another began precedes it."""
    return check_set(final, appends) + _real_time_order(final, appends)


def check_set(final: Collection[str], adds: Collection[Operation]) -> list[str]:
    """A set has every acknowledged element once and none that was never added; unknown outcomes may be present."""
    counts = Counter(final)
    lost = {each.value for each in adds if each.end is not None} - counts.keys()
    unexpected = counts.keys() - {each.value for each in adds}
    return [
        *(f"{value!r} is there {count} times" for value, count in counts.items() if count > 1),
        *(f"{value!r} was acknowledged and is lost" for value in sorted(lost)),
        *(f"{value!r} was never added" for value in sorted(unexpected)),
    ]


def _real_time_order(final: Sequence[str], appends: Collection[Operation]) -> list[str]:
    by_value = {each.value: each for each in appends}
    problems: list[str] = []
    latest_begin, latest = -1, None
    # An element must not have ended before an earlier element of the log began.
    for element in final:
        operation = by_value.get(element)
        if operation is None:
            continue
        if operation.end is not None and operation.end < latest_begin:
            problems.append(f"{element!r} ended before {latest!r} began, and comes after it")
        if operation.begin > latest_begin:
            latest_begin, latest = operation.begin, element
    return problems


def check_seqs(seqs: Sequence[int]) -> list[str]:
    """Sequence numbers are 1, 2, 3 … without a gap or a repeat; at most five violations."""
    return [
        f"seq {found} instead of {expected}"
        for expected, found in enumerate(seqs, 1)
        if found != expected
    ][:5]


def check_statuses(
    reads: Collection[Operation], later: Mapping[str, frozenset[str]] = LATER_STATUSES
) -> list[str]:
    """Reads of one status go along allowed edges, and find one terminal status, which is never left.

    Reads are ordered by real time; those that overlap may be in either order. Unanswered ones say nothing.
    """
    known = [each for each in reads if each.end is not None]
    unknown = sorted({each.value for each in known} - later.keys())
    terminal = sorted({each.value for each in known if not later.get(each.value, {""})})
    problems = [f"{value!r} is no status" for value in unknown]
    if len(terminal) > 1:
        problems.append(f"it ended as {' and as '.join(terminal)}")
    backwards = {
        (first.value, second.value)
        for first in known
        for second in known
        if first.end is not None and first.end < second.begin and first.value in later
        if second.value in later.keys() - later[first.value] - {first.value}
    }
    return problems + [f"it was {one} and then {other}" for one, other in sorted(backwards)]


def check_ledger(totals: Mapping[str, int], entries: Mapping[str, Collection[int]]) -> list[str]:
    """The total of each account is the sum of its entries; an account without entries has none."""
    return [
        f"{account}: {totals.get(account)} booked, {sum(entries.get(account, ()))} by its entries"
        for account in sorted(totals.keys() | entries.keys())
        if totals.get(account) != sum(entries.get(account, ()))
    ]


def check_ok_rate(ok: int, attempts: int, minimum: float = MIN_OK_RATE) -> list[str]:
    """At least the minimum share of some attempts was answered: otherwise the run shows nothing."""
    if attempts > 0 and ok / attempts >= minimum:
        return []
    return [f"{ok} of {attempts} attempts were answered, under {minimum:.0%}"]
