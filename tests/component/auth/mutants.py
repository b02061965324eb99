"""Every model that says less than ours by one part of one line."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Model = dict[str, Any]
NOBODY = {
    "type": "nobody",
    "relations": {"admin": {"this": {}}},
    "metadata": {"relations": {"admin": {"directly_related_user_types": [{"type": "nobody"}]}}},
}


def mutants(model: Model) -> Iterator[tuple[str, Model]]:
    """By name: each relation that nobody can have, each operand of a union and each type of subject left out."""
    for definition in model["type_definitions"]:
        for relation, rule in definition.get("relations", {}).items():
            name = f"{definition['type']}#{relation}"
            types = _types(definition, relation)
            yield (
                name,
                _with(model, definition["type"], relation, {"this": {}}, [{"type": "nobody"}]),
            )
            operands = rule.get("union", {}).get("child", [])
            for operand in operands:
                rest = [each for each in operands if each is not operand]
                less = rest[0] if len(rest) == 1 else {"union": {"child": rest}}
                kept = types if {"this": {}} in rest else []
                yield (
                    f"{name} - {_named(operand)}",
                    _with(model, definition["type"], relation, less, kept),
                )
            for one in types if len(types) > 1 else ():
                # In its place, so that what follows from the line is still well-formed.
                kept = [{"type": "nobody"} if each is one else each for each in types]
                yield (
                    f"{name} - [{_subject(one)}]",
                    _with(model, definition["type"], relation, rule, kept),
                )


def names_in(dsl: Path) -> list[str]:
    """The names of the mutants that there must be, from the text that people read."""
    found: list[str] = []
    kind = ""
    for line in dsl.read_text().splitlines():
        if declared := re.fullmatch(r"type (\w+)", line):
            kind = declared[1]
        if defined := re.fullmatch(r"\s+define (\w+): (.+)", line):
            relation, rule = defined.groups()
            found.append(f"{kind}#{relation}")
            operands = [re.sub(r"\[.*\]", "direct", each) for each in rule.split(" or ")]
            direct = re.search(r"\[(.*)\]", rule)
            types = direct[1].split(", ") if direct else []
            found += [f"{kind}#{relation} - {each}" for each in operands if len(operands) > 1]
            found += [f"{kind}#{relation} - [{each}]" for each in types if len(types) > 1]
    return found


def _with(model: Model, kind: str, relation: str, rule: Any, types: list[Any]) -> Model:
    changed = copy.deepcopy(model)
    changed["type_definitions"].append(copy.deepcopy(NOBODY))
    definition = next(each for each in changed["type_definitions"] if each["type"] == kind)
    definition["relations"][relation] = copy.deepcopy(rule)
    definition["metadata"]["relations"][relation] = {"directly_related_user_types": types}
    return changed


def _types(definition: Any, relation: str) -> list[Any]:
    known = definition["metadata"]["relations"].get(relation, {})
    return known.get("directly_related_user_types", [])


def _named(operand: Any) -> str:
    if "this" in operand:
        return "direct"
    if through := operand.get("tupleToUserset"):
        return f"{through['computedUserset']['relation']} from {through['tupleset']['relation']}"
    return operand["computedUserset"]["relation"]


def _subject(one: Any) -> str:
    return f"{one['type']}#{one['relation']}" if "relation" in one else one["type"]
