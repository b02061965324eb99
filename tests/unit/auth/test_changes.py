"""Which answers a removed relationship tuple may change."""

import pytest

from services.auth.domain.changes import affected_access
from services.contracts.auth.authorization import RelationTuple
from services.kit.access.cache import ANY_ACCESS_CHANGE, AccessChange
from tests.requirements import requirement

HOLDERS = {"user", "group", "share_link"}


def removed(subject: str, relation: str, target: str) -> RelationTuple:
    return RelationTuple(subject=subject, relation=relation, object=target)


@requirement("access:feed")
@pytest.mark.parametrize(
    ("tuple", "change"),
    [
        (removed("user:a|b", "viewer", "run:r"), AccessChange("a|b", "run:r")),
        (removed("group:g#member", "viewer", "run:r"), AccessChange(None, "run:r")),
        (removed("organization:o", "owner", "api_key:k"), AccessChange(None, "api_key:k")),
        (removed("user:ada", "member", "group:g"), AccessChange("ada", None)),
        (removed("user:ada", "holder", "share_link:l"), AccessChange("ada", None)),
        (removed("group:h#member", "member", "group:g"), ANY_ACCESS_CHANGE),
        (removed("user:u#friend", "viewer", "run:r"), AccessChange(None, "run:r")),
    ],
    ids=lambda each: f"{each.subject} {each.object}" if isinstance(each, RelationTuple) else "",
)
def test_a_removed_tuple_concerns_whom_and_what_it_could_have_given_access(
    tuple: RelationTuple, change: AccessChange
) -> None:
    assert affected_access([tuple], HOLDERS) == [change]


def test_each_change_is_told_once() -> None:
    roles = [removed("user:ada", role, "run:r") for role in ("viewer", "editor")]
    assert affected_access(roles, HOLDERS) == [AccessChange("ada", "run:r")]
