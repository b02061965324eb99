"""Workflow activities whose effects this app owns."""

from services.llm.activities.erasure import UserErasure

__all__ = ["UserErasure"]
