"""Stacks for the tests of the command: real servers and sidecars, tiny apps, ports of their own."""

from pathlib import Path
from typing import Final

OFFSET: Final = 7000
"""Servers on 13xxx, away from a stack that the developer may be running."""
TEMPLATE: Final = Path(__file__).parent / "apps" / "dapr.yaml"
