"""The guide for other Dapr apps shows the programs that the e2e tests run."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from services.cli.sidecar import prepare_sidecar
from services.cli.stack.state import StateFolder
from services.codegen.dapr import SHARED
from services.kit.errors import catalogue
from tests.contract.sources import ROOT
from tests.requirements import requirement
from tests.support.guide import fences_of, regions_of

GUIDE: Final = ROOT / "services" / "calling-from-other-apps.md"
SOURCES: Final = {
    "go": ("go/yocaso.go", "go/main.go"),
    "ts": ("typescript/yocaso.ts", "typescript/ask.ts"),
    "java": ("java/Ask.java",),
}


def regions(language: str) -> dict[str, str]:
    files = [ROOT / "tests" / "foreign" / name for name in SOURCES[language]]
    return {name: code for file in files for name, code in regions_of(file).items()}


@requirement("dapr:guide")
@pytest.mark.parametrize("language", SOURCES)
def test_the_guide_shows_each_region_of_a_program_as_it_is(language: str) -> None:
    shown = {name: code for kind, name, code in fences_of(GUIDE) if kind == language}
    assert shown == regions(language)
    assert {"client", "ask"} <= set(shown)


@requirement("dapr:guide")
def test_the_guide_shows_the_sidecar_that_the_command_starts(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.create()
    shared = yaml.safe_load(SHARED.read_text())
    (state.run / "config-edge.yaml").write_text(yaml.safe_dump(shared))
    (state.run / "edge-daprd.json").write_text('{"argv": ["daprd"], "env": {}}')
    argv = prepare_sidecar(state, "shop", 3600, None).argv
    shown = {name: code for _, name, code in fences_of(GUIDE)}
    config = yaml.safe_load((state.run / "sidecar-shop.yaml").read_text())
    assert yaml.safe_load(shown["configuration"]) == config
    command = shown["daprd"].replace("\\\n", " ").split()
    assert command == [word if word != argv[4] else "shop.yaml" for word in argv]


@requirement("dapr:guide")
def test_the_codes_in_the_guide_exist() -> None:
    rows = re.findall(r"^\| (?:\d{3}|any) \| `([A-Z_]+)`", GUIDE.read_text(), re.MULTILINE)
    assert len(rows) >= 6
    assert set(rows) <= {str(code) for code in catalogue()}


@requirement("dapr:guide")
def test_regions_are_dedented_and_must_end(tmp_path: Path) -> None:
    source = tmp_path / "a.go"
    source.write_text("x\n\t// region one\n\ta\n\n\t\tb\n\t// endregion\ny\n")
    assert regions_of(source) == {"one": "a\n\n\tb\n"}
    source.write_text("// region one\na\n")
    with pytest.raises(ValueError, match="one"):
        regions_of(source)
