"""An app with one actor, on a real sidecar."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.stack import Stack

OFFSET = 15_000
SECOND = "workflows-2"
TEMPLATE = Path(__file__).parent / "actors" / "dapr.yaml"


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The app with its sidecar and servers."""
    stack = Stack(
        tmp_path_factory.mktemp("actors"),
        port_offset=OFFSET,
        dapr_yaml=TEMPLATE,
        unsupervised=(SECOND, f"{SECOND}-daprd"),
    )
    stack.start(seconds=90)
    yield stack
    stack.stop()
