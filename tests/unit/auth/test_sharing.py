"""Sharing: roles, links and what is refused."""

from datetime import UTC, datetime, timedelta

import pytest

from services.auth.domain.sharing import (
    StoredLink,
    direct_shares,
    owners,
    refuse_owner,
    refuse_past,
    role_tuples,
    share_changes,
)
from services.contracts.auth.authorization import RelationTuple, Share, ShareRole
from services.kit.errors import ErrorCode, RpcError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TARGET = "conversation:conv_1"
LINK = StoredLink(
    link_id="link_0123456789abcdefghijklmnop",
    object=TARGET,
    role=ShareRole.EDITOR,
    created_by="olga",
    created_at=NOON,
    expires_at=NOON + timedelta(hours=1),
)


def a_tuple(subject: str, relation: str) -> RelationTuple:
    return RelationTuple(subject=subject, relation=relation, object=TARGET)


def test_a_link_works_until_it_expires_or_is_ended() -> None:
    assert LINK.is_valid_at(NOON)
    assert not LINK.is_valid_at(NOON + timedelta(hours=1))
    assert not LINK.model_copy(update={"ended_at": NOON}).is_valid_at(NOON)
    assert LINK.model_copy(update={"expires_at": None}).is_valid_at(NOON + timedelta(days=999))


def test_a_link_gives_its_role_to_those_who_hold_it() -> None:
    assert LINK.grant == a_tuple(f"share_link:{LINK.link_id}#holder", "editor")
    held = LINK.holder_tuple("idp|bob")
    assert (held.subject, held.relation) == ("user:idp|bob", "holder")
    assert held.object == f"share_link:{LINK.link_id}"


def test_a_link_shows_its_token_only_when_it_is_made() -> None:
    assert LINK.view("yl_secret").token == "yl_secret"
    assert LINK.view().token is None
    assert LINK.view().role is ShareRole.EDITOR


def test_shares_are_direct_roles_each_subject_once_with_the_higher() -> None:
    tuples = [
        a_tuple("user:olga", "owner"),
        a_tuple("user:bob", "editor"),
        a_tuple("user:bob", "viewer"),
        a_tuple("group:team#member", "viewer"),
        a_tuple("user:eve", "viewer"),
        a_tuple("user:eve", "editor"),
        LINK.grant,
    ]
    assert direct_shares(tuples) == [
        Share(subject="user:bob", role=ShareRole.EDITOR),
        Share(subject="group:team#member", role=ShareRole.VIEWER),
        Share(subject="user:eve", role=ShareRole.EDITOR),
    ]
    assert owners(tuples) == {"user:olga"}


def test_a_role_takes_the_place_of_the_other() -> None:
    writes, deletes = share_changes(TARGET, "user:bob", ShareRole.VIEWER)
    assert (writes, deletes) == ([a_tuple("user:bob", "viewer")], [a_tuple("user:bob", "editor")])
    assert sorted(each.relation for each in role_tuples(TARGET, "user:bob")) == ["editor", "viewer"]


@pytest.mark.parametrize("subject", ["user:olga", "user:me"])
def test_the_owner_and_the_caller_are_given_nothing(subject: str) -> None:
    with pytest.raises(RpcError) as refused:
        refuse_owner(subject, {"user:olga"}, "me")
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_others_may_be_given_a_role() -> None:
    refuse_owner("user:bob", {"user:olga"}, "olga")
    refuse_owner("organization:olga#member", {"user:olga"}, "olga")


def test_a_link_may_not_have_expired_when_it_is_made() -> None:
    refuse_past(None, NOON)
    refuse_past(NOON + timedelta(seconds=1), NOON)
    with pytest.raises(RpcError) as refused:
        refuse_past(NOON, NOON)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
