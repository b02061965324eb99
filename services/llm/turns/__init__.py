"""Use cases of turns: `service` admits them, `runner` makes attempts, `recovery` repeats them, `events` reads them."""

from services.llm.turns.events import TurnEvents, turn_ref
from services.llm.turns.recovery import TurnRecovery
from services.llm.turns.runner import TurnRunner
from services.llm.turns.service import TurnService
from services.llm.turns.usage import UsageMeter

__all__ = ["TurnEvents", "TurnRecovery", "TurnRunner", "TurnService", "UsageMeter", "turn_ref"]
