"""Hosts the test workflows behind the RPCs of the `workflows` app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dapr.ext.workflow.aio import DaprWorkflowClient
from fastapi import FastAPI, Request

from services.contracts.apps import EDGE
from services.contracts.workflows.service import WORKFLOW_SERVICE
from services.kit.access.identity import TrustedApps
from services.kit.dapr.workflows import LocalWorkflows
from services.kit.http.app import create_service
from services.kit.http.dependencies import get_dependency
from services.kit.manifest import App
from services.kit.settings import PlatformSettings, load_settings
from services.platform import Platform
from tests.component.kit.workflows.contract import CALLER, FIXED, HOST, PLAY
from tests.component.kit.workflows.guide import EXAMPLE
from tests.component.kit.workflows.plays import fixed, play
from workflows.rpc import HostedWorkflows, rpc

APP = App(id=HOST, purpose="plays", number=13, services=(WORKFLOW_SERVICE,))


def create_app() -> FastAPI:
    settings = load_settings(PlatformSettings)
    callers = {method.path: (CALLER,) for method in WORKFLOW_SERVICE.methods}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Platform.open(APP, settings, app) as platform:
            await _compose(platform)
            await platform.begin()
            yield

    app = create_service(
        HOST,
        settings,
        routers=[rpc],
        lifespan=lifespan,
        document=dict,
        trusted=TrustedApps(EDGE.id, callers),
    )
    app.add_api_route("/instances/{instance_id}", _read, methods=["GET"])
    return app


async def _compose(platform: Platform) -> None:
    platform.workflow_host.add_workflow(PLAY, play)
    platform.workflow_host.add_workflow(FIXED, fixed)
    platform.workflow_host.add_workflow(EXAMPLE.REVIEW, EXAMPLE.review)
    hosted = HostedWorkflows({ref.name: ref for ref in (PLAY, FIXED, EXAMPLE.REVIEW)})
    platform.provide(LocalWorkflows(), hosted, DaprWorkflowClient())


async def _read(request: Request) -> dict[str, Any]:
    """What daprd says of an instance."""
    client = get_dependency(request.app, DaprWorkflowClient)
    state = await client.get_workflow_state(request.path_params["instance_id"])
    if state is None:
        return {"status": None}
    failure = state.failure_details
    return {
        "status": state.runtime_status.name,
        "output": state.serialized_output,
        "failure": failure and failure.message,
    }
