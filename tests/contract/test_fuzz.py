"""Every fuzz target of the edge has a committed corpus, and the gate runs it."""

import re

import pytest

from tests.contract.sources import ROOT
from tests.requirements import requirement
from tests.support.fuzz import FOLDER

SOURCES = {path.name: path.read_text() for path in FOLDER.glob("*_test.go")}
TARGETS = sorted(
    name
    for source in SOURCES.values()
    for name in re.findall(r"^func (Fuzz\w+)", source, re.MULTILINE)
)
CORPORA = FOLDER / "testdata" / "fuzz"
PARSERS = {
    "FuzzClientAddress",
    "FuzzConfig",
    "FuzzCredential",
    "FuzzErrorBody",
    "FuzzIdentityHeaders",
    "FuzzRenderedBody",
    "FuzzSettings",
    "FuzzToken",
    "FuzzUntrustedHeaders",
}


@requirement("gates:fuzz")
def test_every_parser_has_a_target_and_every_target_a_corpus() -> None:
    assert set(TARGETS) == PARSERS
    assert {path.name for path in CORPORA.iterdir()} == PARSERS


@requirement("gates:fuzz")
@pytest.mark.parametrize("target", TARGETS)
def test_a_corpus_has_inputs_that_go_can_read(target: str) -> None:
    inputs = sorted((CORPORA / target).iterdir())
    assert len(inputs) >= 5
    assert [
        path.name for path in inputs if not path.read_text().startswith("go test fuzz v1\n")
    ] == []
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert not {"testdata", "testdata/", "services/edge/testdata"} & set(ignored)
