"""Brings the schemas of all apps to their newest revisions: `python -m services.cli.migrate` on YOCASO_DATABASE_URL."""

import asyncio
import os
from importlib import import_module
from pathlib import Path
from typing import Final

from services.contracts.apps import APPS
from services.kit import eventlog
from services.kit.storage.sql import migrate

_ROOT: Final = Path(__file__).parents[2]


def schemas() -> dict[str, Path]:
    """The revisions of every schema: of the apps with tables, and of the event log."""
    found = {eventlog.SCHEMA: eventlog.MIGRATIONS}
    for app in APPS:
        versions = _ROOT / app.folder / eventlog.MIGRATIONS.name
        if versions.is_dir():
            found[import_module(f"{app.module}.tables").SCHEMA] = versions
    return found


async def _migrate_all() -> None:
    for schema, versions in schemas().items():
        await migrate(os.environ["YOCASO_DATABASE_URL"], schema, versions)


if __name__ == "__main__":
    asyncio.run(_migrate_all())
