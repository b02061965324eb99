"""Rules of sharing: roles and share links."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.contracts.auth.authorization import (
    EDITOR,
    OWNER,
    VIEWER,
    RelationTuple,
    Share,
    ShareLink,
    ShareRole,
)
from services.kit.errors import RpcError

HOLDER: Final = "holder"
TOKEN_PREFIX: Final = "yl_"  # noqa: S105 - a prefix
TOKEN_BYTES: Final = 24
RELATIONS: Final = {ShareRole.VIEWER: VIEWER, ShareRole.EDITOR: EDITOR}
ROLES: Final = {relation: role for role, relation in RELATIONS.items()}


class StoredLink(BaseModel):
    """A share link without its token, of which only a keyed hash is stored."""

    model_config = ConfigDict(frozen=True)

    link_id: str
    object: str
    role: ShareRole
    created_by: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None

    def is_valid_at(self, now: datetime) -> bool:
        return self.ended_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def grant(self) -> RelationTuple:
        """The tuple that gives the role to all holders of the link."""
        return RelationTuple(
            subject=f"share_link:{self.link_id}#{HOLDER}",
            relation=RELATIONS[self.role],
            object=self.object,
        )

    def holder_tuple(self, user_id: str) -> RelationTuple:
        """The tuple that makes a user a holder."""
        return RelationTuple(
            subject=f"user:{user_id}", relation=HOLDER, object=f"share_link:{self.link_id}"
        )

    def view(self, token: str | None = None) -> ShareLink:
        """The link as its owner sees it; the token only at creation."""
        return ShareLink(
            link_id=self.link_id,
            object=self.object,
            role=self.role,
            created_at=self.created_at,
            expires_at=self.expires_at,
            token=token,
        )


def direct_shares(tuples: Iterable[RelationTuple]) -> list[Share]:
    """Subjects with a role of their own, each once with the higher role."""
    found: dict[str, ShareRole] = {}
    for each in tuples:
        role = ROLES.get(each.relation)
        if role is None or each.subject.startswith("share_link:"):
            continue
        if found.get(each.subject) is not ShareRole.EDITOR:
            found[each.subject] = role
    return [Share(subject=subject, role=role) for subject, role in found.items()]


def share_changes(
    target: str, subject: str, role: ShareRole
) -> tuple[list[RelationTuple], list[RelationTuple]]:
    """Writes and deletes that leave the subject with this role only."""
    tuples = {
        each: RelationTuple(subject=subject, relation=relation, object=target)
        for each, relation in RELATIONS.items()
    }
    return [tuples.pop(role)], list(tuples.values())


def role_tuples(target: str, subject: str) -> list[RelationTuple]:
    """The tuples of every role that a share can give."""
    return [RelationTuple(subject=subject, relation=relation, object=target) for relation in ROLES]


def owners(tuples: Iterable[RelationTuple]) -> set[str]:
    """The subjects that own an object."""
    return {each.subject for each in tuples if each.relation == OWNER}


def refuse_owner(subject: str, owners: set[str], caller: str) -> None:
    """Raise INVALID_ARGUMENT if a share would be for an owner or for the caller."""
    if subject in owners or subject == f"user:{caller}":
        raise RpcError.invalid("subject", "has the object already, as its owner")


def refuse_past(expires_at: datetime | None, now: datetime) -> None:
    """Raise INVALID_ARGUMENT for an expiry in the past."""
    if expires_at is not None and expires_at <= now:
        raise RpcError.invalid("expiresAt", "must be in the future")
