"""Which way actors' rows are read and written."""

from typing import TYPE_CHECKING

from services.kit.dapr.sidecar import Sidecar
from services.kit.dapr.state_component import ComponentStateStore
from services.kit.dapr.state_rows import StateStore
from services.kit.settings import ActorStateWay, PlatformSettings

if TYPE_CHECKING:  # where the component is used, no driver is loaded for it
    from services.kit.storage.db import Database


def state_store(
    settings: PlatformSettings, app_id: str, sidecar: Sidecar, database: "Database"
) -> StateStore:
    """The state of an app's actors, by the way that `YOCASO_ACTOR_STATE` names."""
    if settings.actor_state is ActorStateWay.COMPONENT:
        return ComponentStateStore(sidecar)
    from services.kit.dapr.state_postgres import PostgresStateStore

    return PostgresStateStore(database, app_id)
