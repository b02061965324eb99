"""How a call is refused."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from services.kit.access.authorization import AccessControl
from services.kit.access.cache import AccessCache, AccessChanges, AccessCheck
from services.kit.access.identity import CallerIdentity
from services.kit.access.limits import RateLimiter
from services.kit.errors import AnyErrorCode, ErrorCode, RpcError
from tests.requirements import requirement

VIEW = AccessCheck("ada", "viewer", "conversation:c1")
ADA = CallerIdentity("ada", "ada@example.com", frozenset())


class Tuples:
    """An `AccessSource` over a set of what is allowed."""

    def __init__(self, *allowed: AccessCheck) -> None:
        self.allowed = set(allowed)
        self.away = False

    async def check(self, check: AccessCheck) -> bool:
        if self.away:
            raise RpcError(ErrorCode.UNAVAILABLE, "away")
        return check in self.allowed

    async def changes(self, after: int | None) -> AccessChanges:
        raise NotImplementedError


class Denied:
    """Remembers who was denied what."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    async def denied(self, caller: CallerIdentity, relation: str, target: str) -> None:
        self.seen.append((caller.user_id, relation, target))


def a_control(tuples: Tuples, denials: Denied | None = None) -> AccessControl:
    return AccessControl(AccessCache(tuples), cast(RateLimiter, None), denials or Denied())


async def refusal(call: Callable[[], Any]) -> AnyErrorCode:
    with pytest.raises(RpcError) as caught:
        await call()
    return caught.value.code


@requirement("access:fail-closed")
async def test_nobody_is_let_through_while_nobody_can_tell() -> None:
    tuples = Tuples(VIEW)
    tuples.away = True
    control = a_control(tuples)
    code = await refusal(lambda: control.require(ADA, "viewer", "conversation:c1"))
    assert code is ErrorCode.UNAVAILABLE


@requirement("access:foreign-as-missing")
async def test_what_may_not_be_seen_is_not_found() -> None:
    denials = Denied()
    control = a_control(Tuples(), denials)
    code = await refusal(lambda: control.require(ADA, "editor", "conversation:c1"))
    assert code is ErrorCode.NOT_FOUND
    assert denials.seen == [("ada", "editor", "conversation:c1")]


async def test_what_may_be_seen_but_not_changed_says_so() -> None:
    control = a_control(Tuples(VIEW))
    code = await refusal(lambda: control.require(ADA, "editor", "conversation:c1"))
    assert code is ErrorCode.PERMISSION_DENIED
