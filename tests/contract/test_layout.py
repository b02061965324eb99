"""A service can be read from its folder listing: known file names, a README, no drawers for odds and ends."""

import re
import tomllib
from pathlib import Path

from services.contracts.services import SERVICES
from tests.contract.sources import ROOT, project_files, python_files
from tests.requirements import requirement

LIBRARIES = {"kit", "contracts", "cli", "edge", "decisions"}
PARTS = {
    "app",
    "settings",
    "rpc",
    "actors",
    "activities",
    "events",
    "domain",
    "ports",
    "adapters",
    "tables",
    "migrations",
    "turns",  # the use cases of llm, past the size of one service.py
    "model",  # of authorization, which only auth has
}
DRAWERS = {"utils", "helpers", "common", "manager_utils", "misc", "shared"}
DEVELOPER_PATH = re.compile(r"(?<![\w.$}])/(?:work|root|home/\w+|Users/\w+|tmp/w)/")


def _services() -> list[Path]:
    folders = (path for path in (ROOT / "services").iterdir() if path.is_dir())
    return sorted(
        path
        for path in folders
        if path.name not in LIBRARIES and not path.name.startswith((".", "_"))
    )


@requirement("gates:layout")
def test_a_service_folder_has_only_the_known_parts() -> None:
    found = {
        f"{service.name}/{part.name}"
        for service in _services()
        for part in service.iterdir()
        if part.suffix in {".py", ""} and not part.name.startswith("_") and part.stem not in PARTS
    }
    assert sorted(found) == []


@requirement("gates:layout")
def test_every_service_has_a_readme_and_the_map_names_it() -> None:
    readmes = [ROOT / "services" / "README.md", *(service / "README.md" for service in _services())]
    assert [str(path.relative_to(ROOT)) for path in readmes if not path.is_file()] == []
    text = readmes[0].read_text()
    assert [service.name for service in _services() if f"`{service.name}`" not in text] == []


def test_every_app_of_the_contracts_has_a_folder() -> None:
    folders = {service.name for service in _services()} | {
        "workflows"
    }  # which has its own at the root
    assert sorted({service.app_id for service in SERVICES} - folders) == []


def test_every_service_is_under_the_import_contracts() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    contracts = {contract["id"]: contract for contract in config}
    apart = contracts["platform"]["layers"][0].split(" | ")
    assert [s.name for s in _services() if f"services.{s.name}" not in apart] == []
    assert [
        s.name
        for s in _services()
        if f"services.{s.name}" not in contracts["service"]["containers"]
    ] == []


def test_no_file_is_a_drawer() -> None:
    assert [str(path.relative_to(ROOT)) for path in python_files() if path.stem in DRAWERS] == []


def test_no_file_names_a_path_of_a_developers_machine() -> None:
    this = Path(__file__)
    texts = ((path, path.read_bytes()) for path in project_files() if path != this)
    found = [
        str(path.relative_to(ROOT))
        for path, text in texts
        if DEVELOPER_PATH.search(text.decode(errors="replace"))
    ]
    assert found == []
