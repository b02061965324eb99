"""Our names and OpenFGA's: its ids know no `:`, `#`, `@` or space, so ours are percent-encoded there."""

from typing import Any
from urllib.parse import quote, unquote

from services.contracts.auth.authorization import RelationTuple


def encoded(reference: str) -> str:
    """`user:idp|ada` or `organization:acme#member`, as OpenFGA takes it."""
    kind, _, rest = reference.partition(":")
    name, mark, relation = rest.partition("#")
    return f"{kind}:{quote(name, safe='')}{mark}{relation}"


def decoded(reference: str) -> str:
    """What `encoded` was given."""
    kind, _, rest = reference.partition(":")
    return f"{kind}:{unquote(rest)}"


def fields(fact: RelationTuple) -> dict[str, Any]:
    """A fact, as the SDK's classes take it."""
    return {
        "user": encoded(fact.subject),
        "relation": fact.relation,
        "object": encoded(fact.object),
    }


def fact_of(key: Any) -> RelationTuple:
    """A fact, from a key of the SDK."""
    return RelationTuple(
        subject=decoded(key.user), relation=key.relation, object=decoded(key.object)
    )
