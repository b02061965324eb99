"""`TurnStreams` over kit's event log."""

from datetime import UTC, datetime, timedelta

from services.contracts.events import EventType
from services.kit.eventlog import EventLog
from services.kit.references import Workflows


class EventLogTurnStreams:
    """Deletes a turn's workflow history with its stream; `kept` after its end, so that readers see the terminal event."""

    def __init__(self, events: EventLog, workflows: Workflows, kept: timedelta) -> None:
        self._events = events
        self._kept = kept
        self._workflows = workflows

    async def purge(self, conversation_id: str) -> tuple[list[str], bool]:
        streams = await self._events.list_by_subject(conversation_id)
        for stream in streams:
            if stream.closed_at is None:
                await self._events.close_stream(stream.stream_id, EventType.RUN_CANCELLED, {})
        horizon = datetime.now(UTC) - self._kept
        old = [one.stream_id for one in streams if one.closed_at and one.closed_at < horizon]
        if old:
            await self._workflows.purge(old)
            await self._events.forget(old)
        return old, len(old) < len(streams)
