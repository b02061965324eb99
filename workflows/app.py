"""Hosts every Dapr workflow."""

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final

from fastapi import FastAPI

from services.contracts.openapi import app_document
from services.contracts.turns import GENERATION_WORKFLOW
from services.kit.app import create_service
from services.kit.settings import PlatformSettings, load_settings
from services.kit.workflows import LocalWorkflows, WorkflowHost
from workflows.generation.workflow import generation
from workflows.rpc import provide, rpc

DRAIN: Final = timedelta(seconds=5)


def create_app() -> FastAPI:
    """The workflows app, configured by the environment."""
    return create_service(
        "workflows",
        load_settings(PlatformSettings),
        routers=[rpc],
        lifespan=_open,
        document=lambda: app_document("workflows"),
    )


async def _open(app: FastAPI, stack: AsyncExitStack) -> None:
    host = WorkflowHost()
    host.add_workflow(GENERATION_WORKFLOW, generation)
    provide(app, LocalWorkflows(), {GENERATION_WORKFLOW.name: GENERATION_WORKFLOW})
    await host.start()
    stack.push_async_callback(host.stop, DRAIN)
