"""Each test gets a marker, a timeout and socket access according to its folder."""

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.host_platform"]
ROOT: Final = Path(__file__).parent
BOUNDS: Final = {
    "unit": 10,
    "contract": 30,
    "component": 60,
    "e2e": 120,
    "chaos": 300,
    "faults": 180,
    "bench": 1800,
}
"""Timeouts in seconds, generous because a busy machine can stall."""
PROPERTY_BOUND: Final = 60
"""Timeout of a hypothesis test, which runs its body a hundred times."""
LOOPBACK: Final = ["127.0.0.1", "::1", "localhost"]

os.environ.setdefault("APP_API_TOKEN", "token-of-the-tests")  # required to build an app

# The timeout detects hangs; a deadline per example fails on a busy machine.
settings.register_profile(
    "yocaso", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("yocaso")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder."""
    for item in items:
        folder = item.path.relative_to(ROOT).parts[0]
        if folder not in BOUNDS:
            continue
        item.add_marker(folder)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_bound(item, folder)))
        if folder == "unit":
            item.add_marker(_sockets(item))


def _bound(item: pytest.Item, folder: str) -> int:
    is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    return max(BOUNDS[folder], PROPERTY_BOUND) if is_property else BOUNDS[folder]


def _sockets(item: pytest.Item) -> pytest.MarkDecorator:
    if item.get_closest_marker("loopback") is not None:
        return pytest.mark.allow_hosts(LOOPBACK)
    return pytest.mark.disable_socket
