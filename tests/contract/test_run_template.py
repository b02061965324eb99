"""`dapr.yaml` is valid by the rules of `dapr run -f`, and names the servers of `yocaso infra`."""

from dataclasses import astuple
from pathlib import Path

import pytest

from services.cli.stack.dapr_run import next_step
from services.cli.stack.name_resolution import registry_of
from services.cli.stack.ports import MAX_PORT, PortPlan
from services.cli.stack.state import StateFolder
from services.cli.stack.template import AppEntry, read_template
from services.contracts.apps import APPS
from tests.contract.sources import ROOT
from tests.requirements import requirement

FILE = ROOT / "dapr.yaml"
ENTRIES = {app.app_id: app for app in read_template(FILE).apps}
"""Reading refuses unknown fields and paths that do not exist."""

each_app = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)


@requirement("stack:run-template", "stack:dapr-yaml")
def test_every_app_of_the_manifests_has_an_entry_and_ports_of_its_own() -> None:
    ports = [port for entry in ENTRIES.values() for port in astuple(entry.ports)]
    assert set(ENTRIES) == {app.id for app in APPS}
    assert len(ports) == len(set(ports))
    assert max(ports) <= MAX_PORT


@requirement("stack:run-template")
@each_app
def test_every_path_of_an_app_is_of_this_repository(entry: AppEntry) -> None:
    assert entry.enable_app_health_check
    assert entry.config_file_path
    paths = [entry.app_dir_path, entry.config_file_path, *(entry.resources_paths or [])]
    assert len(paths) == 4
    assert all(Path(path).is_relative_to(ROOT) for path in paths)


@requirement("stack:run-template")
@each_app
def test_a_sidecar_finds_the_name_registry_from_its_working_directory(entry: AppEntry) -> None:
    assert entry.config_file_path
    registry = registry_of(Path(entry.config_file_path), entry.folder)
    assert registry == StateFolder(ROOT / ".yocaso").names


@requirement("stack:dapr-run")
def test_infra_shows_the_lines_for_dapr_run_only_if_the_file_names_its_servers(
    tmp_path: Path,
) -> None:
    state = StateFolder(ROOT / ".yocaso")
    lines = f"\n  . {state.env_file}\n  dapr run -f {FILE}\n"
    assert lines in next_step(state, PortPlan(), FILE)
    for other in (
        next_step(state, PortPlan(100), FILE),
        next_step(StateFolder(tmp_path), PortPlan(), FILE),
    ):
        assert lines not in other
        assert "--port-offset" in other
