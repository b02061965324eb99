"""Chooses the implementation of `StateStore` by the setting `YOCASO_ACTOR_STATE`."""

from typing import TYPE_CHECKING

from services.kit.dapr.pubsub.outbox import Outbox
from services.kit.dapr.sidecar import Sidecar
from services.kit.dapr.state_component import ComponentStateStore
from services.kit.dapr.state_rows import StateStore
from services.kit.settings import ActorStateAccess, PlatformSettings

if TYPE_CHECKING:  # with the component, no Postgres driver is loaded
    from services.kit.storage.db import Database


def state_store(
    settings: PlatformSettings,
    app_id: str,
    sidecar: Sidecar,
    database: "Database",
    outbox: Outbox | None = None,
) -> StateStore:
    """The state store of an app's actors, and the outbox of their events."""
    if settings.actor_state is ActorStateAccess.COMPONENT:
        return ComponentStateStore(sidecar, database, outbox)
    from services.kit.dapr.state_postgres import PostgresStateStore

    return PostgresStateStore(database, app_id, outbox)
