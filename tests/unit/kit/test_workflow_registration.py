"""When a sidecar counts as one that does not serve workflows."""

from services.kit.dapr.workflows.registration import STUCK_SECONDS, RegistrationWatch


def test_only_a_type_that_stays_missing_is_stuck() -> None:
    now = 100.0
    watch = RegistrationWatch(lambda: now)
    assert not watch.is_stuck(registered=False)
    now += STUCK_SECONDS - 1
    assert not watch.is_stuck(registered=False)
    now += 1
    assert watch.is_stuck(registered=False)
    assert not watch.is_stuck(registered=True)
    assert not watch.is_stuck(registered=False)


def test_a_silent_sidecar_and_one_without_placement_are_not_stuck() -> None:
    now = 100.0
    watch = RegistrationWatch(lambda: now)
    assert not watch.is_stuck(registered=False)
    now += STUCK_SECONDS - 1
    assert not watch.is_stuck(registered=None)
    now += 2
    assert not watch.is_stuck(registered=False)
