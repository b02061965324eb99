"""Waiting ends with the first true value, or says what never came."""

import pytest

from tests.support.wait import wait_until


async def test_the_first_true_value_is_returned() -> None:
    values = iter([None, 0, 7])
    assert await wait_until(lambda: next(values), every=0) == 7


async def test_a_condition_may_be_asynchronous() -> None:
    async def condition() -> str:
        return "there"

    assert await wait_until(condition) == "there"


async def test_what_never_came_is_named() -> None:
    with pytest.raises(AssertionError, match="the answer did not come"):
        await wait_until(lambda: False, timeout=0, what="the answer")
