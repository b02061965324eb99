"""The store and the model of every call: created at the first start, then pinned."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, cast

import structlog
from openfga_sdk import OpenFgaClient
from openfga_sdk.models.create_store_request import CreateStoreRequest

from services.auth.adapters.openfga.calls import StoreMissing, call_openfga
from services.auth.ports.relations import AccessFeed
from services.kit.access.cache import ANY_ACCESS_CHANGE
from services.kit.errors import unavailable

MODEL: Final = Path(__file__).parents[2] / "model" / "authorization.json"
STORE: Final = "yocaso"

Exclusive = Callable[[], AbstractAsyncContextManager[object]]
"""A lock that replicas share: without it two that start together would create two stores."""

log = structlog.get_logger()


class PinnedStore:
    """Finds the store by its name or creates it, writes the model unless it is the latest, and pins both."""

    def __init__(
        self,
        client: OpenFgaClient,
        name: str,
        exclusive: Exclusive,
        feed: AccessFeed,
        model: Path = MODEL,
    ) -> None:
        self._client: Any = client
        self._name = name
        self._exclusive = exclusive
        self._feed = feed
        self._model: dict[str, Any] = json.loads(model.read_text())
        self._definitions: list[dict[str, Any]] = self._model["type_definitions"]
        self._opening = asyncio.Lock()
        self._pinned = False

    @property
    def kinds(self) -> list[str]:
        """The types whose objects can have tuples."""
        return [each["type"] for each in self._definitions if each.get("relations")]

    @property
    def holders(self) -> frozenset[str]:
        """The types that relations name: through their objects users reach other objects."""
        named: set[str] = set()
        for definition in self._definitions:
            metadata: dict[str, Any] = definition.get("metadata") or {}
            relations: dict[str, dict[str, Any]] = metadata.get("relations") or {}
            for relation in relations.values():
                types: list[dict[str, Any]] = relation.get("directly_related_user_types", [])
                named |= {each["type"] for each in types}
        return frozenset(named)

    async def pin(self) -> None:
        """Find both, once. UNAVAILABLE while OpenFGA does not answer; the next call tries again."""
        if self._pinned:
            return
        async with self._opening:
            if not self._pinned:
                try:
                    await self._find()
                except StoreMissing as error:
                    raise unavailable() from error

    def unpin(self) -> None:
        """Let the next call find both again."""
        self._pinned = False

    async def _find(self) -> None:
        async with self._exclusive():
            self._client.set_store_id(await self._find_store())
            self._client.set_authorization_model_id(await self._find_model())
        self._pinned = True

    async def _find_store(self) -> str:
        found = await call_openfga(lambda: self._client.list_stores({"name": self._name}))
        if found.stores:
            return found.stores[0].id
        request = CreateStoreRequest(name=self._name)
        created = await call_openfga(lambda: self._client.create_store(request))
        log.info("openfga.store_created", store=created.id)
        return created.id

    async def _find_model(self) -> str:
        answer = await call_openfga(self._client.read_latest_authorization_model)
        latest = answer.authorization_model
        if latest is not None:
            sanitized = self._client._api_client.sanitize_for_serialization(latest)
            if same_model(sanitized, self._model):
                return latest.id
        async with self._feed.publishing([ANY_ACCESS_CHANGE]):
            written = await call_openfga(
                lambda: self._client.write_authorization_model(self._model)
            )
        log.info("openfga.model_written", model=written.authorization_model_id)
        return written.authorization_model_id


def same_model(one: Any, other: Any) -> bool:
    """Whether two models are equal; the server adds empty fields."""
    parts = ("schema_version", "type_definitions", "conditions")
    return all(_plain(one.get(part) or None) == _plain(other.get(part) or None) for part in parts)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        whole = cast(dict[str, Any], value)
        parts = {key: _plain(part) for key, part in whole.items()}
        return {
            k: part for k, part in parts.items() if k == "this" or part not in (None, "", {}, [])
        }
    if isinstance(value, list):
        return [_plain(part) for part in cast(list[Any], value)]
    return value
