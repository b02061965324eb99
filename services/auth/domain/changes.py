"""Which answers of access checks a removed relationship tuple may change."""

from collections.abc import Collection, Iterable

from services.contracts.auth.authorization import RelationTuple
from services.kit.access.cache import AccessChange


def taken_away(removed: Iterable[RelationTuple], holders: Collection[str]) -> list[AccessChange]:
    """What to forget. `holders` are the types through whose objects a user may have a relation to another object.

    A yes rests on a chain of tuples from the object to the user. A tuple about an object of another type is the
    chain's first, so it matters to this object alone; one that names a user is the last, so it matters to this
    user alone. A holder's tuple about another holder is in the middle: it matters to everything.
    """
    changes: dict[AccessChange, None] = {}  # each once, in order
    for each in removed:
        subject_type, _, user_id = each.subject.partition(":")
        object_type = each.object.partition(":")[0]
        change = AccessChange(
            user_id=user_id if subject_type == "user" and "#" not in user_id else None,
            object=None if object_type in holders else each.object,
        )
        changes[change] = None
    return list(changes)
