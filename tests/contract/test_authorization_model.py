"""The authorization model given to OpenFGA is emitted from its DSL file."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from services.contracts.auth import authorization
from tests.contract.sources import ROOT
from tests.requirements import requirement

MODEL = ROOT / "services" / "auth" / "model"


def emit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["go", "run", "-C", str(folder / "emit"), ".", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@requirement("access:model")
@pytest.mark.timeout(300)  # the transformer is compiled once
def test_the_committed_json_is_emitted_from_the_dsl(tmp_path: Path) -> None:
    assert emit(MODEL, "-check").stderr == ""


@pytest.mark.timeout(300)
def test_a_dsl_change_without_its_json_is_detected(tmp_path: Path) -> None:
    for path in (*MODEL.glob("authorization.*"), *MODEL.glob("emit/*")):
        copy = tmp_path / path.relative_to(MODEL)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    dsl = tmp_path / "authorization.fga"
    dsl.write_text(dsl.read_text().replace("define manager: owner or", "define manager:"))
    assert "run `poe emit`" in emit(tmp_path, "-check").stderr
    assert emit(tmp_path).returncode == 0
    assert emit(tmp_path, "-check").returncode == 0


def test_the_model_defines_the_relations_of_the_contract() -> None:
    text = (MODEL / "authorization.fga").read_text()
    names = (authorization.OWNER, authorization.EDITOR, authorization.VIEWER)
    for relation in (*names, authorization.ADMIN, authorization.MEMBER):
        assert f"define {relation}:" in text


@requirement("access:feed")
def test_neither_an_added_tuple_nor_time_can_revoke_access() -> None:
    # The access feed has removals only: with `but not` or conditions it would miss revocations.
    model = json.loads((MODEL / "authorization.json").read_text())
    assert set(model) <= {"schema_version", "type_definitions"}
    assert _words(model).isdisjoint({"difference", "condition", "conditions"})


def _words(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_words, value.values()))
    return set().union(*map(_words, value)) if isinstance(value, list) else set()
