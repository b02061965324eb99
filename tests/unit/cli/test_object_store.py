"""The object store is a server of those stacks only whose apps use it."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from services.cli.stack.environment import Environment
from services.cli.stack.infra import objects_spec
from services.cli.stack.ports import PortPlan
from services.cli.stack.state import StateFolder
from services.contracts import apps
from services.kit.manifest import OBJECTS
from tests.requirements import requirement


def prepared(folder: Path, *app_ids: str) -> Environment:
    state = StateFolder(folder)
    state.create()
    return Environment.prepare(state, PortPlan(1000), app_ids, with_model=False)


def declare(monkeypatch: pytest.MonkeyPatch, app_id: str) -> None:
    """Name the object store in an app's manifest."""
    app = apps.app_of(app_id)
    changed = replace(app, components=(*app.components, OBJECTS))
    monkeypatch.setattr(apps, "APPS", tuple(changed if each is app else each for each in apps.APPS))


@requirement("stack:objects")
def test_a_stack_of_apps_without_objects_has_no_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, "workflows")
    environment = prepared(tmp_path, "llm", "edge")
    environment.write_file()
    assert not environment.with_objects
    assert "objectsSecret" not in environment.secrets
    assert "OBJECTS" not in environment.state.env_file.read_text()


@requirement("stack:objects")
def test_each_stack_has_credentials_of_its_own_and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, "workflows")
    first = prepared(tmp_path / "a", "llm", "workflows")
    other = prepared(tmp_path / "b", "workflows")
    assert first.secrets["objectsSecret"] != other.secrets["objectsSecret"]
    assert prepared(tmp_path / "a", "workflows").secrets == first.secrets
    assert first.for_app("workflows")["YOCASO_OBJECTS_URL"] == "http://127.0.0.1:7075"
    assert "YOCASO_OBJECTS_URL" not in first.for_app("llm")


def test_a_file_system_without_attributes_gets_a_folder_for_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, "workflows")
    environment = prepared(tmp_path, "workflows")

    def arguments() -> tuple[str, ...]:
        program = tmp_path / "versitygw"
        return objects_spec(environment.state, 7075, environment.secrets, program).argv[1:]

    def without_attributes(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no extended attributes")

    data = environment.state.data
    monkeypatch.setattr(os, "setxattr", without_attributes, raising=False)
    assert arguments() == ("posix", "--sidecar", f"{data}/objects-metadata", f"{data}/objects")
    monkeypatch.setattr(os, "setxattr", lambda *_: None, raising=False)
    assert arguments() == ("posix", f"{data}/objects")
    assert (data / "objects" / "yocaso").is_dir()
