"""A sidecar is suspected when a call waits and nothing of its type is passed on, and of nothing else."""

import contextlib

import pytest

from services.kit.dapr.placement_watch import APART, HANGS_AFTER, PlacementWatch
from tests.requirements import requirement
from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def watch(clock: ManualClock) -> PlacementWatch:
    return PlacementWatch(clock)


@requirement("kit:hangs")
def test_a_call_that_waits_while_none_is_passed_on_is_suspicious(
    watch: PlacementWatch, clock: ManualClock
) -> None:
    with watch.calling("Type"):
        clock.now += HANGS_AFTER
        assert watch.suspect() is None
        clock.now += 1
        assert watch.suspect() == "Type"
    assert watch.suspect() is None


@requirement("kit:hangs")
@pytest.mark.parametrize("how", ["delivered", "answered"])
def test_a_slow_call_beside_one_that_was_passed_on_is_not(
    watch: PlacementWatch, clock: ManualClock, how: str
) -> None:
    with watch.calling("Type"):
        clock.now += 1
        if how == "delivered":
            watch.passed_on("Type")
        else:
            with watch.calling("Type"):
                pass
        clock.now += HANGS_AFTER
        assert watch.suspect() is None


@requirement("kit:hangs")
def test_what_is_passed_on_of_one_type_says_nothing_of_another(
    watch: PlacementWatch, clock: ManualClock
) -> None:
    with watch.calling("Locked"):
        clock.now += HANGS_AFTER + 1
        watch.passed_on("Free")
        assert watch.suspect() == "Locked"


@requirement("kit:hangs")
def test_a_failed_call_is_no_sign_of_life(watch: PlacementWatch, clock: ManualClock) -> None:
    with watch.calling("Type"):
        clock.now += 1
        with contextlib.suppress(TimeoutError), watch.calling("Type"):
            raise TimeoutError
        clock.now += HANGS_AFTER
        assert watch.suspect() == "Type"


@requirement("kit:hangs")
def test_an_attempt_gets_its_time(watch: PlacementWatch, clock: ManualClock) -> None:
    with watch.calling("Type"):
        clock.now += HANGS_AFTER + 1
        with watch.releasing():
            assert watch.is_releasing
        assert not watch.is_releasing
        assert watch.suspect() is None
        clock.now += APART
        assert watch.suspect() == "Type"
