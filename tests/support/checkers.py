"""Checkers: pure functions that return the violations found in a final state."""

from collections import Counter
from collections.abc import Collection, Sequence

from tests.support.history import Operation


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
