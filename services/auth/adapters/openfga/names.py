"""Translates references and tuples. OpenFGA ids have no `:`, `#`, `@` or space, so ours are percent-encoded."""

from typing import Any
from urllib.parse import quote, unquote

from services.contracts.auth.authorization import RelationTuple


def encoded(reference: str) -> str:
    """Encode `user:idp|ada` or `organization:acme#member`."""
    kind, _, rest = reference.partition(":")
    name, mark, relation = rest.partition("#")
    return f"{kind}:{quote(name, safe='')}{mark}{relation}"


def decoded(reference: str) -> str:
    """Undo `encoded`."""
    kind, _, rest = reference.partition(":")
    return f"{kind}:{unquote(rest)}"


def fields(relation_tuple: RelationTuple) -> dict[str, Any]:
    """Arguments for the SDK's classes."""
    return {
        "user": encoded(relation_tuple.subject),
        "relation": relation_tuple.relation,
        "object": encoded(relation_tuple.object),
    }


def tuple_of(key: Any) -> RelationTuple:
    return RelationTuple(
        subject=decoded(key.user), relation=key.relation, object=decoded(key.object)
    )
