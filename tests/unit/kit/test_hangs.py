"""A sidecar is suspected when a call waits and nothing of its type is passed on, and of nothing else."""

import contextlib

import pytest

from services.kit.dapr.placement_watch import APART, HANGS_AFTER, Hangs
from tests.requirements import requirement
from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def hangs(clock: ManualClock) -> Hangs:
    return Hangs(clock)


@requirement("kit:hangs")
def test_a_call_that_waits_while_none_is_passed_on_is_suspicious(
    hangs: Hangs, clock: ManualClock
) -> None:
    with hangs.calling("Type"):
        clock.now += HANGS_AFTER
        assert hangs.suspect() is None
        clock.now += 1
        assert hangs.suspect() == "Type"
    assert hangs.suspect() is None


@requirement("kit:hangs")
@pytest.mark.parametrize("how", ["delivered", "answered"])
def test_a_slow_call_beside_one_that_was_passed_on_is_not(
    hangs: Hangs, clock: ManualClock, how: str
) -> None:
    with hangs.calling("Type"):
        clock.now += 1
        if how == "delivered":
            hangs.passed_on("Type")
        else:
            with hangs.calling("Type"):
                pass
        clock.now += HANGS_AFTER
        assert hangs.suspect() is None


@requirement("kit:hangs")
def test_what_is_passed_on_of_one_type_says_nothing_of_another(
    hangs: Hangs, clock: ManualClock
) -> None:
    with hangs.calling("Locked"):
        clock.now += HANGS_AFTER + 1
        hangs.passed_on("Free")
        assert hangs.suspect() == "Locked"


@requirement("kit:hangs")
def test_a_failed_call_is_no_sign_of_life(hangs: Hangs, clock: ManualClock) -> None:
    with hangs.calling("Type"):
        clock.now += 1
        with contextlib.suppress(TimeoutError), hangs.calling("Type"):
            raise TimeoutError
        clock.now += HANGS_AFTER
        assert hangs.suspect() == "Type"


@requirement("kit:hangs")
def test_an_attempt_gets_its_time(hangs: Hangs, clock: ManualClock) -> None:
    with hangs.calling("Type"):
        clock.now += HANGS_AFTER + 1
        with hangs.ending():
            assert hangs.are_ending
        assert not hangs.are_ending
        assert hangs.suspect() is None
        clock.now += APART
        assert hangs.suspect() == "Type"
