"""Refusals of unauthorized calls."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from typing_extensions import override

from services.kit.access.authorization import AccessControl, DenialAudit
from services.kit.access.cache import AccessCache, AccessChanges, AccessCheck
from services.kit.access.identity import CallerIdentity
from services.kit.access.limits import RateLimiter
from services.kit.errors import AnyErrorCode, ErrorCode, RpcError
from tests.requirements import requirement

VIEW = AccessCheck("ada", "viewer", "conversation:c1")
ADA = CallerIdentity("ada", "ada@example.com", frozenset())


class Tuples:
    """An `AccessSource` over a set of allowed checks."""

    def __init__(self, *allowed: AccessCheck) -> None:
        self.allowed = set(allowed)
        self.away = False

    async def check(self, check: AccessCheck) -> bool:
        if self.away:
            raise RpcError(ErrorCode.UNAVAILABLE, "away")
        return check in self.allowed

    async def changes(self, after: int | None) -> AccessChanges:
        raise NotImplementedError


class Denied(DenialAudit):
    """Keeps the recorded denials in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, str]] = []

    @override
    def add(self, caller: CallerIdentity, relation: str, target: str) -> None:
        self.seen.append((caller.user_id, relation, target))


def a_control(tuples: Tuples, denials: Denied | None = None) -> AccessControl:
    return AccessControl(AccessCache(tuples), cast(RateLimiter, None), denials or Denied())


async def refusal(call: Callable[[], Any]) -> AnyErrorCode:
    with pytest.raises(RpcError) as caught:
        await call()
    return caught.value.code


@requirement("access:fail-closed")
async def test_a_failed_check_denies_access() -> None:
    tuples = Tuples(VIEW)
    tuples.away = True
    control = a_control(tuples)
    code = await refusal(lambda: control.require(ADA, "viewer", "conversation:c1"))
    assert code is ErrorCode.UNAVAILABLE


@requirement("access:foreign-as-missing")
async def test_an_invisible_object_is_not_found() -> None:
    denials = Denied()
    control = a_control(Tuples(), denials)
    code = await refusal(lambda: control.require(ADA, "editor", "conversation:c1"))
    assert code is ErrorCode.NOT_FOUND
    assert denials.seen == [("ada", "editor", "conversation:c1")]


async def test_a_visible_object_without_the_relation_is_permission_denied() -> None:
    control = a_control(Tuples(VIEW))
    code = await refusal(lambda: control.require(ADA, "editor", "conversation:c1"))
    assert code is ErrorCode.PERMISSION_DENIED
