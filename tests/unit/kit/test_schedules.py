"""Schedules of cron jobs, and the run for which a delivery counts."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.bindings import InputBinding, OutputBinding
from services.kit.contract import Empty
from services.kit.jobs import CronJob, OneShotJob
from services.kit.schedules import Schedule
from tests.requirements import requirement

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}+00:00")


@requirement("kit:jobs:schedules")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "hourly",
        "@fortnightly",
        "@every",
        "@every 0s",
        "@every 500ms",
        "@every -1h",
        "@every 1h 5m",
        "0 15 3 * *",
        "0 0 15 3 * * *",
        "60 * * * * *",
        "0 0 0 30 2 *",
        "0 0 0 * * 7",
        "0 0 0 * * */2",
        "0 0 0 * * MONL",
        "0 0 0 L * *",
        "0 0 0 1 * MON",
        "0 0 0 ? * *",
        "TZ=Europe/Berlin 0 0 0 * * *",
    ],
)
def test_a_schedule_that_dapr_refuses_or_reads_differently_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"@every|cron|named|restricts|day"):
        CronJob("purge", text, "Purges.")


@requirement("kit:jobs:schedules")
@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("0 15 3 * * *", "27T03:15:00"),
        ("*/10 * * * * *", "27T12:00:00"),
        ("0 0 0 * * MON-FRI", "27T00:00:00"),
        ("0 0 0 * * 0", "22T00:00:00"),
        ("0 30 11,13 * * *", "27T11:30:00"),
        ("@hourly", "27T12:00:00"),
        ("@weekly", "22T00:00:00"),
        ("@monthly", "01T00:00:00"),
    ],
)
def test_a_delivery_counts_for_the_newest_due_time(text: str, due: str) -> None:
    schedule = Schedule.parse(text)
    assert schedule.due(NOON, None) == at(due)
    assert schedule.due(NOON, at(due)) is None
    assert schedule.due(NOON, at(due) - SECOND) == at(due)


@requirement("kit:jobs:schedules")
def test_a_delivery_counts_for_its_due_time_though_the_clocks_differ() -> None:
    schedule = Schedule.parse("0 0 * * * *")
    early = NOON - timedelta(seconds=4)
    assert schedule.due(early, NOON - timedelta(hours=1)) == NOON
    assert schedule.due(NOON + timedelta(milliseconds=3), NOON) is None
    assert schedule.due(NOON - timedelta(seconds=6), NOON - timedelta(hours=1)) is None


@requirement("kit:jobs:schedules")
def test_what_was_missed_is_one_run() -> None:
    hourly, last = Schedule.parse("@every 1h"), NOON - timedelta(hours=9)
    assert hourly.due(NOON, last) == NOON
    assert hourly.due(NOON + SECOND, NOON) is None
    assert hourly.due(NOON + timedelta(minutes=30), NOON) == NOON + timedelta(minutes=30)
    daily = Schedule.parse("@daily")
    assert daily.due(NOON, NOON - timedelta(days=9)) == at("27T00:00:00")
    assert daily.due(NOON, at("27T00:00:00")) is None


@requirement("kit:jobs:schedules")
@given(
    seconds=st.integers(1, 100_000),
    late=st.floats(0, 0.4),
    period=st.sampled_from(["* * * * * *", "*/7 * * * * *", "0 * * * * *", "@hourly"]),
)
def test_deliveries_of_different_due_times_never_count_for_one(
    seconds: int, late: float, period: str
) -> None:
    schedule = Schedule.parse(period)
    first = schedule.due(NOON + seconds * SECOND, None)
    assert first is not None
    delivered = first + late * SECOND
    assert schedule.due(delivered, None) == first
    following = schedule.due(delivered + timedelta(hours=1), first)
    assert following is not None
    assert following > first


@pytest.mark.parametrize("name", ["", "Purge", "pur:ge", "a/b", "-a", "a" * 64])
def test_names_that_dapr_or_a_path_cannot_hold_are_refused(name: str) -> None:
    for declare in (
        lambda: CronJob(name, "@daily", ""),
        lambda: OneShotJob(name, Empty, ""),
        lambda: OutputBinding(name, ""),
        lambda: InputBinding(name, ""),
    ):
        with pytest.raises(ValueError, match="name"):
            declare()
