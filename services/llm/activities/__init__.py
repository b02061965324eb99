"""The work on turns: the segment that answers, and the sweep that leaves none behind."""

from services.llm.activities.erasure import UserErasure
from services.llm.activities.segment import TurnRunner
from services.llm.activities.sweep import TurnSweep

__all__ = ["TurnRunner", "TurnSweep", "UserErasure"]
