"""Service folders have known file names and a README; no file has a catch-all name."""

import re
from pathlib import Path

from services.contracts.apps import APPS
from services.kit.manifest import App, Language
from tests.contract.sources import ROOT, project_files, python_files
from tests.requirements import requirement

LIBRARIES = {"kit", "contracts", "platform", "codegen", "cli", "decisions"}
PARTS = {
    "app",
    "settings",
    "rpc",
    "service",
    "actors",
    "activities",
    "events",
    "domain",
    "ports",
    "adapters",
    "tables",
    "migrations",
    "turns",  # use cases of llm
    "model",  # the authorization model of auth
}
CATCH_ALL_NAMES = {"utils", "helpers", "common", "manager_utils", "misc", "shared"}
DEVELOPER_PATH = re.compile(r"(?<![\w.$}])/(?:work|root|home/\w+|Users/\w+|tmp/w)/")


def _python_apps() -> list[App]:
    return [app for app in APPS if app.language is Language.PYTHON and app.module != "workflows"]


@requirement("gates:layout")
def test_a_service_folder_has_only_the_known_parts() -> None:
    found = {
        f"{app.id}/{part.name}"
        for app in _python_apps()
        for part in (ROOT / app.folder).iterdir()
        if part.suffix in {".py", ""} and not part.name.startswith("_") and part.stem not in PARTS
    }
    assert sorted(found) == []


@requirement("gates:layout")
def test_every_app_has_a_folder_with_a_readme_and_every_folder_an_app() -> None:
    assert [app.folder for app in APPS if not (ROOT / app.folder / "README.md").is_file()] == []
    folders = {path.name for path in (ROOT / "services").iterdir() if path.is_dir()}
    apps = {Path(app.folder).name for app in APPS}
    assert {name for name in folders - apps - LIBRARIES if not name.startswith((".", "_"))} == set()


def test_no_file_has_a_catch_all_name() -> None:
    assert [
        str(path.relative_to(ROOT)) for path in python_files() if path.stem in CATCH_ALL_NAMES
    ] == []


def test_no_file_names_a_path_of_a_developers_machine() -> None:
    this = Path(__file__)
    texts = ((path, path.read_bytes()) for path in project_files() if path != this)
    found = [
        str(path.relative_to(ROOT))
        for path, text in texts
        if DEVELOPER_PATH.search(text.decode(errors="replace"))
    ]
    assert found == []
