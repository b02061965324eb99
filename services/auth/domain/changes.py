"""Which cached access checks a deleted relationship tuple invalidates."""

from collections.abc import Collection, Iterable

from services.contracts.auth.authorization import RelationTuple
from services.kit.access.cache import AccessChange


def affected_access(
    deleted: Iterable[RelationTuple], holders: Collection[str]
) -> list[AccessChange]:
    """The changes to publish. `holders` are the types through whose objects users reach other objects.

    Access rests on a chain of tuples from the object to the user. A tuple of a non-holder object is the first link,
    so only this object is affected; one that names a user is the last, so only this user is. Between two holders
    it may be in any chain: everything is affected.
    """
    changes: dict[AccessChange, None] = {}  # each once, in order
    for each in deleted:
        subject_type, _, user_id = each.subject.partition(":")
        object_type = each.object.partition(":")[0]
        change = AccessChange(
            user_id=user_id if subject_type == "user" and "#" not in user_id else None,
            object=None if object_type in holders else each.object,
        )
        changes[change] = None
    return list(changes)
