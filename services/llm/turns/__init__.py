"""Turns: admitted, answered by a model, recovered when their host dies."""

from services.llm.turns.runner import TurnRunner
from services.llm.turns.service import TurnService
from services.llm.turns.usage import UsageMeter

__all__ = ["TurnRunner", "TurnService", "UsageMeter"]
