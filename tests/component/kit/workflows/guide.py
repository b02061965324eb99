"""The example of kit's README, executed."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any, Final

README: Final = Path(__file__).parents[4] / "services" / "kit" / "README.md"


def load(heading: str) -> Any:
    """The Python example below a heading, as a module."""
    section = README.read_text().partition(f"### {heading}\n")[2]
    found = re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, f"{README.name} has no example of {heading}"
    module = ModuleType(f"readme_{heading.lower()}")
    exec(compile(found[1], str(README), "exec"), module.__dict__)
    return module


EXAMPLE: Final = load("Workflows")
