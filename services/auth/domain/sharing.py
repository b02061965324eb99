"""Sharing: who may be given what, and what a link is."""

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
TOKEN_PREFIX: Final = "yl_"  # noqa: S105 - what every token begins with
TOKEN_BYTES: Final = 24
RELATIONS: Final = {ShareRole.VIEWER: VIEWER, ShareRole.EDITOR: EDITOR}
ROLES: Final = {relation: role for role, relation in RELATIONS.items()}


class StoredLink(BaseModel):
    """A link without its token, of which only a keyed hash is kept."""

    model_config = ConfigDict(frozen=True)

    link_id: str
    object: str
    role: ShareRole
    created_by: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None

    def works_at(self, now: datetime) -> bool:
        """Whether it opens."""
        return self.ended_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def grant(self) -> RelationTuple:
        """What gives the role to all who hold the link."""
        return RelationTuple(
            subject=f"share_link:{self.link_id}#{HOLDER}",
            relation=RELATIONS[self.role],
            object=self.object,
        )

    def held_by(self, user_id: str) -> RelationTuple:
        """What makes a user one of them."""
        return RelationTuple(
            subject=f"user:{user_id}", relation=HOLDER, object=f"share_link:{self.link_id}"
        )

    def shown(self, token: str | None = None) -> ShareLink:
        """The link as its owner sees it; with the token once."""
        return ShareLink(
            link_id=self.link_id,
            object=self.object,
            role=self.role,
            created_at=self.created_at,
            expires_at=self.expires_at,
            token=token,
        )


def direct_shares(facts: Iterable[RelationTuple]) -> list[Share]:
    """Who has an object by a role of their own, each once, with the higher role."""
    found: dict[str, ShareRole] = {}
    for fact in facts:
        role = ROLES.get(fact.relation)
        if role is None or fact.subject.startswith("share_link:"):
            continue
        if found.get(fact.subject) is not ShareRole.EDITOR:
            found[fact.subject] = role
    return [Share(subject=subject, role=role) for subject, role in found.items()]


def share_changes(
    target: str, subject: str, role: ShareRole
) -> tuple[list[RelationTuple], list[RelationTuple]]:
    """What to write and what to delete, so that the subject has this role and no other."""
    facts = {
        each: RelationTuple(subject=subject, relation=relation, object=target)
        for each, relation in RELATIONS.items()
    }
    return [facts.pop(role)], list(facts.values())


def role_facts(target: str, subject: str) -> list[RelationTuple]:
    """Every role that a subject could have been given."""
    return [RelationTuple(subject=subject, relation=relation, object=target) for relation in ROLES]


def owners(facts: Iterable[RelationTuple]) -> set[str]:
    """Who owns an object."""
    return {fact.subject for fact in facts if fact.relation == OWNER}


def refuse_owner(subject: str, owners: set[str], caller: str) -> None:
    """A share is for somebody else.

    Raises:
        RpcError: INVALID_ARGUMENT for the caller and for an owner.
    """
    if subject in owners or subject == f"user:{caller}":
        raise RpcError.invalid("subject", "has the object already, as its owner")


def refuse_past(expires_at: datetime | None, now: datetime) -> None:
    """A link is for some time yet.

    Raises:
        RpcError: INVALID_ARGUMENT.
    """
    if expires_at is not None and expires_at <= now:
        raise RpcError.invalid("expiresAt", "must be in the future")
