"""What Yocaso promises: every behaviour has an id and a source; a test names the ids that it shows.

`tests/contract/test_requirements.py` fails for an id without a test and for a test with an unknown id.
"""

from typing import Final

import pytest

from tests.requirements import platform, product

REQUIREMENTS: Final = {**product.PROMISES, **platform.PROMISES}


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Says which promises a test shows."""
    unknown = [name for name in ids if name not in REQUIREMENTS]
    if unknown:
        raise ValueError(f"no such requirement: {unknown}")
    return pytest.mark.requirement(*ids)
