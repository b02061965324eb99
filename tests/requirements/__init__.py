"""What Yocaso guarantees: requirements by their source, the place in the repository that states them.

A test names the ids that it proves by `@requirement(...)`. `tests/contract/test_requirements.py` fails for a
requirement without a test, a test with an unknown id, and a source that does not exist.
"""

from typing import Final

import pytest

from tests.requirements import platform, product

SOURCES: Final = (*product.SOURCES.items(), *platform.SOURCES.items())
REQUIREMENTS: Final = tuple(name for _, requirements in SOURCES for name in requirements)


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Marks a test with the requirements that it proves."""
    unknown = [name for name in ids if name not in REQUIREMENTS]
    if unknown:
        raise ValueError(f"no such requirement: {unknown}")
    return pytest.mark.requirement(*ids)
