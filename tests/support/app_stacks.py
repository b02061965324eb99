"""Stacks of one test's own apps: their run templates, and calls to an app as its sidecar makes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from services.cli.stack import Stack
from services.codegen.dapr import configuration
from services.kit.manifest import App

ROOT: Final = Path(__file__).parents[2]


def write_template(source: Path, folder: Path, app: App | None = None) -> Path:
    """A copy of a run template beside an empty folder `components`.

    With an `app`, the copy is also beside the configuration that follows from its manifest.
    """
    (folder / "components").mkdir()
    if app is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(configuration(app)))
    template = folder / "dapr.yaml"
    template.write_text(source.read_text().replace("appDirPath: root", f"appDirPath: {ROOT}"))
    return template


class AppCalls:
    """Calls the apps of a stack as their sidecars do."""

    def __init__(self, stack: Stack, session: aiohttp.ClientSession) -> None:
        self.stack = stack
        self._session = session

    async def call(
        self,
        app: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> tuple[int, Any]:
        """Status and body of the answer; 0 and the error if the app does not answer."""
        sent = {"dapr-api-token": self.stack.app_token(app), **(headers or {})}
        url = f"{self.stack.url(app)}{path}"
        try:
            async with self._session.request(method, url, json=body or {}, headers=sent) as reply:
                return reply.status, await reply.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, repr(error)
