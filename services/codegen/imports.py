"""Generates import-linter's rules."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from services.codegen.files import HEADER, ROOT
from services.contracts.apps import APPS
from services.kit.manifest import Language

FILE: Final = ROOT / ".importlinter"
LAYERS: Final = (
    "(app)",
    "(rpc) | (events) | (activities)",
    "(service) | (turns)",
    "(actors)",
    "(adapters)",
    "(tables)",
    "(ports)",
    "(domain)",
)
"""Layers inside an app from the top, each optional."""
FRAMEWORKS: Final = (
    *("aiobotocore", "aiohttp", "alembic", "asyncpg", "dapr", "fastapi", "grpc", "httpx", "openai"),
    *("sqlalchemy", "starlette", "uvicorn", "valkey"),
)


def files() -> dict[Path, str]:
    modules = [app.module for app in APPS if app.language is Language.PYTHON]
    sections = [
        _section(
            "importlinter",
            root_packages=["services", "workflows"],
            include_external_packages=["True"],
            exclude_type_checking_imports=["True"],
        ),
        _section(
            "importlinter:contract:platform",
            name=["Layers: apps, platform, contracts, kit; apps do not import each other"],
            type=["layers"],
            layers=[
                " | ".join(sorted([*modules, "services.cli", "services.codegen"])),
                "services.platform",
                "services.contracts",
                "services.kit",
            ],
        ),
        _section(
            "importlinter:contract:app",
            name=[
                "Inside an app: composition, entry points, use cases, actors, adapters, ports, domain"
            ],
            type=["layers"],
            containers=modules,
            layers=LAYERS,
        ),
        _section(
            "importlinter:contract:composition",
            name=["Only app.py imports adapters"],
            type=["protected"],
            protected_modules=["services.*.adapters"],
            allowed_importers=["services.*.app"],
        ),
        _section(
            "importlinter:contract:purity",
            name=[
                "Contracts, domains, ports and policies import no framework or vendor, even indirectly"
            ],
            type=["forbidden"],
            source_modules=[
                "services.contracts",
                "services.*.domain",
                "services.*.ports",
                "workflows.*.policy",
            ],
            forbidden_modules=FRAMEWORKS,
        ),
    ]
    return {FILE: HEADER + "\n".join(sections)}


def _section(title: str, **values: Iterable[str]) -> str:
    lines = [f"[{title}]"]
    for key, items in values.items():
        first, *more = items
        lines += (
            [f"{key} ="] + [f"    {item}" for item in (first, *more)]
            if more
            else [f"{key} = {first}"]
        )
    return "\n".join(lines) + "\n"
