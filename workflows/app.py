"""Hosts every Dapr workflow."""

from contextlib import AsyncExitStack
from datetime import timedelta

from fastapi import FastAPI

from services.contracts.accounts import DELETE_ACCOUNT
from services.contracts.openapi import app_document
from services.contracts.turns import GENERATION_WORKFLOW
from services.kit.dapr.workflows import LocalWorkflows, WorkflowHost
from services.kit.http.app import create_service
from services.kit.settings import PlatformSettings, load_settings
from workflows.deletion.workflow import delete_account
from workflows.generation.workflow import generation
from workflows.rpc import provide, rpc


def create_app() -> FastAPI:
    """The workflows app, configured by the environment."""
    settings = load_settings(PlatformSettings)

    async def lifespan(app: FastAPI, stack: AsyncExitStack) -> None:
        await _open(app, stack, timedelta(seconds=settings.drain_seconds))

    return create_service(
        "workflows",
        settings,
        routers=[rpc],
        lifespan=lifespan,
        document=lambda: app_document("workflows"),
    )


async def _open(app: FastAPI, stack: AsyncExitStack, drain: timedelta) -> None:
    host = WorkflowHost()
    hosted = {GENERATION_WORKFLOW: generation, DELETE_ACCOUNT: delete_account}
    for ref, workflow in hosted.items():
        host.add_workflow(ref, workflow)
    provide(app, LocalWorkflows(), {ref.name: ref for ref in hosted})
    await host.start()
    stack.push_async_callback(host.stop, drain)
