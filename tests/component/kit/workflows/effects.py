"""Hosts the activities, in another app than the workflows."""

from typing import Any

from fastapi import FastAPI

from services.kit.dapr.workflows import MAX_PAYLOAD_BYTES
from services.kit.manifest import App
from services.kit.references import WorkflowStatus
from services.kit.settings import PlatformSettings, load_settings
from services.platform import Platform, platform_app
from tests.component.kit.workflows.contract import (
    BAD,
    CALLER,
    GATE,
    MARK,
    PLAY,
    WATCH,
    Step,
    Text,
)
from tests.component.kit.workflows.guide import EXAMPLE
from tests.support.wait import wait_until

APP = App(id=CALLER, purpose="effects", number=12)
SECONDS = 120
TABLES = """
CREATE TABLE IF NOT EXISTS public.marks (
    instance_id text, step text, calls int, PRIMARY KEY (instance_id, step));
CREATE TABLE IF NOT EXISTS public.gates (name text PRIMARY KEY);
CREATE TABLE IF NOT EXISTS public.begun (name text);
"""


class Effects:
    """The activities."""

    def __init__(self, platform: Platform) -> None:
        self._database = platform.database
        self._workflows = platform.workflows

    async def mark(self, step: Step) -> Text:
        await self._database.fetch(
            "INSERT INTO marks VALUES ($1, $2, 1) ON CONFLICT (instance_id, step)"
            " DO UPDATE SET calls = marks.calls + 1",
            step.instance_id,
            step.name,
        )
        return Text(text=step.name)

    async def gate(self, step: Step) -> Text:
        await self._begin(step)

        async def is_open() -> bool:
            statement = "SELECT 1 FROM gates WHERE name = $1"
            return bool(await self._database.fetch(statement, step.instance_id))

        await wait_until(is_open, SECONDS, "the gate to open")
        return await self.mark(step)

    async def watch(self, step: Step) -> Text:
        await self._begin(step)

        async def is_cancelling() -> bool:
            status = await self._workflows.status(PLAY, step.instance_id)
            return status is WorkflowStatus.CANCELLING

        await wait_until(is_cancelling, SECONDS, "the cancel")
        return await self.mark(step)

    async def bad(self, _: Step) -> Text:
        return Text(text="x" * MAX_PAYLOAD_BYTES)

    async def _begin(self, step: Step) -> None:
        await self._database.fetch("INSERT INTO begun VALUES ($1)", step.instance_id)


def create_app() -> FastAPI:
    return platform_app(APP, load_settings(PlatformSettings), routers=[], compose=_compose)


async def _compose(platform: Platform) -> None:
    for statement in TABLES.split(";")[:-1]:
        await platform.database.fetch(statement)
    effects, host = Effects(platform), platform.workflow_host
    host.add_activity(MARK, effects.mark)
    host.add_activity(GATE, effects.gate)
    host.add_activity(WATCH, effects.watch)
    host.add_activity(BAD, effects.bad)
    host.add_activity(EXAMPLE.SPELLING, _granted)
    host.add_activity(EXAMPLE.LINKS, _granted)


async def _granted(_: Any) -> Any:
    return EXAMPLE.Review(granted=True)
