"""Translates the expand tree of OpenFGA."""

from typing import Any

from services.auth.adapters.openfga.names import decoded
from services.contracts.auth.authorization import ExpandNode


def node_of(node: Any) -> ExpandNode:
    """A node of the tree with its children."""
    name = decoded(node.name)
    if node.leaf is not None:
        return _leaf(name, node.leaf)
    if node.difference is not None:
        parts = (node.difference.base, node.difference.subtract)
        return _inner(name, "difference", parts)
    operation = "union" if node.union is not None else "intersection"
    return _inner(name, operation, (node.union or node.intersection).nodes)


def _inner(name: str, operation: str, parts: Any) -> ExpandNode:
    return ExpandNode(name=name, operation=operation, children=[node_of(part) for part in parts])


def _leaf(name: str, leaf: Any) -> ExpandNode:
    if leaf.users is not None:
        subjects = [decoded(user) for user in leaf.users.users]
        return ExpandNode(name=name, operation="direct", subjects=subjects)
    if leaf.computed is not None:
        return ExpandNode(
            name=name, operation="computed", computed_from=[decoded(leaf.computed.userset)]
        )
    through = leaf.tuple_to_userset
    sources = [decoded(each.userset) for each in through.computed]
    return ExpandNode(
        name=name, operation=f"from {decoded(through.tupleset)}", computed_from=sources
    )
