"""An actor type is stuck when a call waits and no later call of the type is delivered."""

import contextlib

import pytest

from services.kit.dapr.placement_watch import (
    RELEASE_INTERVAL_SECONDS,
    STUCK_SECONDS,
    PlacementWatch,
)
from tests.requirements import requirement
from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def watch(clock: ManualClock) -> PlacementWatch:
    return PlacementWatch(clock)


@requirement("kit:locked-actor-types")
def test_an_undelivered_call_makes_its_type_stuck(
    watch: PlacementWatch, clock: ManualClock
) -> None:
    with watch.calling("Type"):
        clock.now += STUCK_SECONDS
        assert watch.stuck_actor_type() is None
        clock.now += 1
        assert watch.stuck_actor_type() == "Type"
    assert watch.stuck_actor_type() is None


@requirement("kit:locked-actor-types")
@pytest.mark.parametrize("how", ["delivered", "answered"])
def test_a_slow_call_with_a_later_delivery_is_not_stuck(
    watch: PlacementWatch, clock: ManualClock, how: str
) -> None:
    with watch.calling("Type"):
        clock.now += 1
        if how == "delivered":
            watch.delivered("Type")
        else:
            with watch.calling("Type"):
                pass
        clock.now += STUCK_SECONDS
        assert watch.stuck_actor_type() is None


@requirement("kit:locked-actor-types")
def test_deliveries_of_one_type_do_not_count_for_another(
    watch: PlacementWatch, clock: ManualClock
) -> None:
    with watch.calling("Locked"):
        clock.now += STUCK_SECONDS + 1
        watch.delivered("Free")
        assert watch.stuck_actor_type() == "Locked"


@requirement("kit:locked-actor-types")
def test_a_failed_call_is_not_a_delivery(watch: PlacementWatch, clock: ManualClock) -> None:
    with watch.calling("Type"):
        clock.now += 1
        with contextlib.suppress(TimeoutError), watch.calling("Type"):
            raise TimeoutError
        clock.now += STUCK_SECONDS
        assert watch.stuck_actor_type() == "Type"


@requirement("kit:locked-actor-types")
def test_after_a_release_no_type_is_stuck_for_a_while(
    watch: PlacementWatch, clock: ManualClock
) -> None:
    with watch.calling("Type"):
        clock.now += STUCK_SECONDS + 1
        with watch.releasing():
            assert watch.is_releasing
        assert not watch.is_releasing
        assert watch.stuck_actor_type() is None
        clock.now += RELEASE_INTERVAL_SECONDS
        assert watch.stuck_actor_type() == "Type"
