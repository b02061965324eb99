"""Composition root of the workflows app: hosts every `@workflow` function of the folders beside this file."""

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI

from services.contracts.workflows.app import APP
from services.kit.dapr.workflows import LocalWorkflows, Workflow, registered_workflows
from services.kit.references import AnyWorkflow
from services.kit.settings import PlatformSettings, load_settings
from services.platform import Platform, platform_app
from workflows.rpc import HostedWorkflows, rpc


def create_app() -> FastAPI:
    """The workflows app, configured by the environment."""
    return platform_app(APP, load_settings(PlatformSettings), routers=[rpc], compose=_compose)


def hosted_workflows() -> Mapping[AnyWorkflow, Workflow]:
    """Import every workflow of this app; its function by its reference."""
    for folder in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if folder.ispkg:
            importlib.import_module(f"{__package__}.{folder.name}.workflow")
    return registered_workflows()


async def _compose(platform: Platform) -> None:
    hosted = hosted_workflows()
    for ref, workflow in hosted.items():
        platform.workflow_host.add_workflow(ref, workflow)
    platform.provide(LocalWorkflows(), HostedWorkflows({ref.name: ref for ref in hosted}))
