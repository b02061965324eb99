"""Token usage of a turn's attempts."""

import json
from collections.abc import Sequence

from services.contracts.llm.turns import Usage


def estimate_usage(prompt_tokens: int, completion_tokens: int, price: float | None) -> Usage:
    """Estimate the usage of an attempt that was cut off; `price` is in US dollars per token, if known."""
    total = prompt_tokens + completion_tokens
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=total,
        cost=total * price if price else None,
        estimated=True,
    )


def sum_usage(parts: Sequence[Usage]) -> Usage | None:
    """Add up the usage of several attempts; None for none."""
    if not parts:
        return None
    costs = [part.cost for part in parts if part.cost is not None]
    return Usage(
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        completion_tokens=sum(part.completion_tokens for part in parts),
        total_tokens=sum(part.total_tokens for part in parts),
        cost=sum(costs) if costs else None,
        estimated=any(part.estimated for part in parts),
    )


def delta_text(data: str) -> str:
    """The text of a stored delta event's data."""
    return str(json.loads(data)["text"])
