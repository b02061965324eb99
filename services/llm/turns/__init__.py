"""Turns: admitted, answered by a model, read by their events, recovered when their host dies."""

from services.llm.turns.events import TurnEvents
from services.llm.turns.recovery import TurnRecovery
from services.llm.turns.runner import TurnRunner
from services.llm.turns.service import TurnService
from services.llm.turns.usage import UsageMeter

__all__ = ["TurnEvents", "TurnRecovery", "TurnRunner", "TurnService", "UsageMeter"]
