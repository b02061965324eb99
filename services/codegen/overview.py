"""Generates the table of apps in `services/README.md`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from services.codegen.files import ROOT
from services.contracts.apps import APPS
from services.kit.manifest import App, Language

FILE: Final = ROOT / "services" / "README.md"
BEGIN: Final = "<!-- apps: written by `poe emit` -->\n"
END: Final = "<!-- end of apps -->\n"
HEAD: Final = (
    "| app | purpose | RPC services | actors | workflows | publishes | subscribes | jobs | port | data it owns |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def files() -> dict[Path, str]:
    """The README with its table replaced."""
    before, _, rest = FILE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return {FILE: before + BEGIN + HEAD + "".join(_row(app) for app in APPS) + END + after}


def _row(app: App) -> str:
    name = f"`{app.id}`" if app.language is Language.PYTHON else f"`{app.id}` ({app.language})"
    state = ["actor state in `statestore`"] if app.actors else []
    cells = (
        name,
        app.purpose,
        _names(service.short_name for service in app.services),
        _names(app.actors),
        _names(workflow.name for workflow in app.workflows),
        _names(topic.name for topic in app.publishes),
        _names(topic.name for topic in app.subscribes),
        _names(job.name for job in app.jobs),
        str(app.port),
        "; ".join([*app.owns, *state]) or "none",
    )
    return f"| {' | '.join(cells)} |\n"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
