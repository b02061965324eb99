"""Builds apps from kit and the contracts: stores, clients, access control, actors and workflows."""

from services.platform.app import platform_app
from services.platform.auth_client import AuthClient
from services.platform.platform import Platform
from services.platform.workflow_client import WorkflowClient

__all__ = ["AuthClient", "Platform", "WorkflowClient", "platform_app"]
