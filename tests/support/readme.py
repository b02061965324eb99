"""The Python examples of a README, to be run."""

import re
from pathlib import Path
from typing import Any


def example_of(readme: Path, heading: str) -> dict[str, Any]:
    """The names that the first Python block below a heading defines."""
    _, found, rest = readme.read_text().partition(f"\n### {heading}\n")
    block = re.search(r"^```python\n(.*?)^```$", rest.split("\n### ")[0], re.MULTILINE | re.DOTALL)
    assert found, f"{readme} has no heading {heading}"
    assert block, f"{readme} has no Python example of: {heading}"
    defined: dict[str, Any] = {}
    exec(compile(block[1], f"{readme.name}: {heading}", "exec"), defined)
    return defined
