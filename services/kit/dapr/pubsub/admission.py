"""The record of what an app received: one row per event or message, whose insertion decides who handles it."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.kit.storage.db import Transaction

ADMIT: Final = """
    INSERT INTO events.inbox (app, topic, event_id) VALUES (:app, :topic, :event)
    ON CONFLICT DO NOTHING RETURNING 1
"""


async def admit(transaction: "Transaction", app_id: str, topic: str, event_id: str) -> bool:
    """Record an event; False if it was recorded before. A concurrent delivery waits for this transaction."""
    from sqlalchemy import text  # takes 20 MB: only apps that receive something load it

    values = {"app": app_id, "topic": topic, "event": event_id}
    return (await transaction.execute(text(ADMIT), values)).first() is not None
