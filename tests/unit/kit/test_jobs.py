"""Jobs and bindings have exactly the handlers that the manifest declares."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from services.kit.bindings import InputBinding, OutputBinding
from services.kit.contract import Empty, Message
from services.kit.dapr.bindings import Bindings
from services.kit.dapr.jobs.jobs import Jobs
from services.kit.dapr.jobs.scheduler import Scheduler
from services.kit.dapr.sidecar import Sidecar
from services.kit.errors import ErrorCode, RpcError
from services.kit.jobs import CronJob, OneShotJob
from services.kit.manifest import App
from services.kit.storage.db import Database
from tests.requirements import requirement

PURGE = CronJob("purge", "@every 1h", "Purges.")
REMIND = OneShotJob("remind", Empty, "Reminds.")
OTHER = OneShotJob("other", Empty, "Is of another app.")
MAIL = OutputBinding("mail", "Sends mail.", operations=("create",))
ORDERS = InputBinding("orders", "Brings orders.")


class Wrong(Message):
    """Not the payload of `REMIND`."""


async def handle(*_: Any) -> None:
    """Do nothing."""


@pytest.fixture
def database() -> Database:
    return Database("postgresql://nowhere")


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs("llm", (PURGE, REMIND), database, cast(Scheduler, None))


@pytest.fixture
def bindings(database: Database) -> Bindings:
    return Bindings("llm", (MAIL, ORDERS), database, cast(Sidecar, None))


def test_a_declared_job_needs_one_handler(jobs: Jobs) -> None:
    with pytest.raises(RuntimeError, match=r"purge.*remind"):
        jobs.require_handlers()
    jobs.add(PURGE, handle)
    jobs.add(REMIND, handle)
    jobs.require_handlers()
    with pytest.raises(TypeError, match="two handlers"):
        jobs.add(PURGE, handle)


async def test_a_job_of_another_app_is_neither_handled_nor_scheduled(jobs: Jobs) -> None:
    with pytest.raises(TypeError, match="not in `jobs`"):
        jobs.add(OTHER, handle)
    with pytest.raises(TypeError, match="not in `jobs`"):
        await jobs.schedule(OTHER, "k", datetime.now(UTC), Empty())
    with pytest.raises(TypeError, match="not in `jobs`"):
        await jobs.cancel(OTHER, "k")


@requirement("kit:jobs:one-shot")
async def test_a_schedule_needs_the_jobs_payload_and_a_time_zone(jobs: Jobs) -> None:
    local = datetime(2026, 11, 27)  # noqa: DTZ001 - what is refused
    for due, payload, field in (
        (local, Empty(), "due"),
        (datetime.now(UTC), Wrong(), "payload"),
    ):
        with pytest.raises(RpcError, match=field) as refused:
            await jobs.schedule(REMIND, "k", due, cast(Empty, payload))
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_binding_is_used_as_the_manifest_declares_it(bindings: Bindings) -> None:
    with pytest.raises(RuntimeError, match="orders"):
        bindings.require_handlers()
    bindings.add(ORDERS, handle)
    bindings.require_handlers()
    with pytest.raises(TypeError, match="two handlers"):
        bindings.add(ORDERS, handle)
    with pytest.raises(TypeError, match="not in `bindings`"):
        await bindings.invoke(OutputBinding("other", "Is of another app."))
    with pytest.raises(TypeError, match="operation delete"):
        await bindings.invoke(MAIL, operation="delete")


def test_the_components_of_bindings_follow_from_the_manifest() -> None:
    app = App(id="a", purpose="", number=1, bindings=(MAIL, ORDERS), components=("secrets",))
    assert app.components == ("secrets", "mail", "orders")
