"""Servers that the tests of one app or of kit share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.stack import Stack

ROOT = Path(__file__).parents[2]
OFFSET = int(os.environ.get("YOCASO_TEST_OFFSET", "9000"))
"""Of the ports; lanes that run side by side have their own."""


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Postgres, Valkey, placement and scheduler, without apps."""
    stack = Stack(
        tmp_path_factory.mktemp("servers"), port_offset=OFFSET, dapr_yaml=ROOT / "dapr.yaml"
    )
    stack.start(apps=False)
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def database_url(servers: Stack) -> str:
    """A Postgres of these tests' own."""
    return servers.database_url()
