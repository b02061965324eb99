"""An app with jobs: those of kit's README, and some whose runs a test directs by rows of a table."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from pydantic import AwareDatetime
from sqlalchemy import text

from services.kit.contract import Empty, Message
from services.kit.dapr.jobs.jobs import Jobs
from services.kit.dapr.jobs.runs import JobRun
from services.kit.errors import ErrorCode, RpcError, unavailable
from services.kit.http.dependencies import get_dependency
from services.kit.jobs import AnyJob, CronJob, OneShotJob
from services.kit.manifest import App
from services.kit.settings import PlatformSettings, load_settings
from services.kit.storage.db import Database
from services.platform import Platform, platform_app
from tests.support.readme import example_of
from tests.support.wait import wait_until

README: Final = Path(__file__).parents[3] / "services" / "kit" / "README.md"
EXAMPLE: Final = example_of(README, "Jobs")
TICK_VARIABLE: Final = "JOBS_TICK"
"""The schedule of the job `tick`; empty for no such job."""
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS reports (day timestamptz)",
    "CREATE TABLE IF NOT EXISTS ended_trials (account text)",
    "CREATE TABLE IF NOT EXISTS effects (job text, run text, pid int, at timestamptz DEFAULT now())",
    "CREATE TABLE IF NOT EXISTS tries (number int, pid int)",
    "CREATE TABLE IF NOT EXISTS mended (number int)",
)
EFFECT: Final = text("INSERT INTO effects (job, run, pid) VALUES (:job, :run, :pid)")


class Task(Message):
    """What a run does before its effect: `mode` is empty, `bug`, `refused`, `unavailable` or `wait`."""

    number: int
    mode: str = ""


class Plan(Message):
    """A schedule of `work`."""

    key: str
    due: AwareDatetime
    task: Task
    replace: bool = False


WORK: Final = OneShotJob("work", Task, "Does a task.", seconds=60)
SLOW: Final = OneShotJob("slow", Task, "Ends by its time limit.", seconds=0.5)
HOURLY: Final = CronJob("hourly", "@hourly", "Counts hours.")
_TICK: Final = os.environ.get(TICK_VARIABLE, "*/2 * * * * *")
TICK: Final = CronJob("tick", _TICK, "Counts.") if _TICK else None
JOBS: Final[tuple[AnyJob, ...]] = (
    EXAMPLE["REPORT"],
    EXAMPLE["END_TRIAL"],
    WORK,
    SLOW,
    HOURLY,
    *([TICK] if TICK else []),
)
APP: Final = App(id="llm", purpose="works at times", number=12, jobs=JOBS, components=("secrets",))
# The local stack knows apps by this id.


def create_app() -> FastAPI:
    app = platform_app(APP, load_settings(PlatformSettings), routers=[], compose=_compose)
    for path, route in (("/schedule", _schedule), ("/cancel", _cancel), ("/trial", _begin_trial)):
        app.add_api_route(path, route, methods=["POST"])
    return app


async def _compose(platform: Platform) -> None:
    database = platform.database
    async with database.exclusive("jobs tests") as transaction:
        for table in TABLES:
            await transaction.execute(text(table))
    jobs = await platform.open_jobs()
    EXAMPLE["add_handlers"](jobs)

    async def count(run: JobRun[Empty]) -> None:
        await _record("tick", run)

    async def count_hour(run: JobRun[Empty]) -> None:
        await _record("hourly", run)

    async def work(run: JobRun[Task]) -> None:
        await _obey(database, run.payload)
        await _record("work", run)

    async def be_slow(run: JobRun[Task]) -> None:
        await database.fetch("INSERT INTO tries VALUES ($1, $2)", run.payload.number, os.getpid())
        await _is_mended(database, run.payload.number)

    if TICK:
        jobs.add(TICK, count)
    jobs.add(HOURLY, count_hour)
    jobs.add(WORK, work)
    jobs.add(SLOW, be_slow)


async def _record(job: str, run: JobRun[Any]) -> None:
    async with run.complete() as transaction:
        await transaction.execute(EFFECT, {"job": job, "run": run.id, "pid": os.getpid()})


async def _obey(database: Database, task: Task) -> None:
    await database.fetch("INSERT INTO tries VALUES ($1, $2)", task.number, os.getpid())
    if task.mode == "wait":
        await _is_mended(database, task.number)
        return
    if task.mode and await _mended(database, task.number):
        return
    if task.mode == "refused":
        raise RpcError(ErrorCode.FAILED_PRECONDITION, "The task is refused.")
    if task.mode == "unavailable":
        raise unavailable()
    if task.mode == "bug":
        raise ValueError("a bug")


async def _mended(database: Database, number: int) -> bool:
    return await database.fetch_one("SELECT 1 FROM mended WHERE number = $1", number) is not None


async def _is_mended(database: Database, number: int) -> None:
    await wait_until(lambda: _mended(database, number), 60, f"task {number} to be mended")


async def _schedule(request: Request) -> dict[str, str]:
    plan = Plan.model_validate_json(await request.body())
    jobs = get_dependency(request.app, Jobs)
    await jobs.schedule(WORK, plan.key, plan.due, plan.task, replace=plan.replace)
    return {}


async def _cancel(request: Request) -> dict[str, str]:
    await get_dependency(request.app, Jobs).cancel(WORK, (await request.json())["key"])
    return {}


async def _begin_trial(request: Request) -> dict[str, str]:
    trial = EXAMPLE["Trial"](account_id=(await request.json())["account"])
    days = timedelta(seconds=1) / timedelta(days=1)
    await EXAMPLE["begin_trial"](get_dependency(request.app, Jobs), trial, days)
    return {}
