"""The store and the model that every call uses: made at the first start, pinned from then on."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, cast

import structlog
from openfga_sdk import OpenFgaClient
from openfga_sdk.models.create_store_request import CreateStoreRequest

from services.auth.adapters.openfga.calls import StoreLost, reaching
from services.auth.ports.feed import AccessFeed
from services.kit.access.cache import EVERYTHING
from services.kit.dapr.sidecar import unavailable

MODEL: Final = Path(__file__).parents[2] / "model" / "authorization.json"
STORE: Final = "yocaso"

Alone = Callable[[], AbstractAsyncContextManager[object]]
"""Within it, no other replica looks for the store or makes it."""

log = structlog.get_logger()


class PinnedStore:
    """Finds the store by its name or makes it, writes the model where the latest is another, and pins both."""

    def __init__(
        self,
        client: OpenFgaClient,
        name: str,
        alone: Alone,
        feed: AccessFeed,
        model: Path = MODEL,
    ) -> None:
        self._client: Any = client
        self._name = name
        self._alone = alone
        self._feed = feed
        self._model: dict[str, Any] = json.loads(model.read_text())
        self._definitions: list[dict[str, Any]] = self._model["type_definitions"]
        self._opening = asyncio.Lock()
        self._pinned = False

    @property
    def kinds(self) -> list[str]:
        """The types that facts can be about."""
        return [each["type"] for each in self._definitions if each.get("relations")]

    @property
    def holders(self) -> frozenset[str]:
        """The types through whose objects a user may have a relation to another: those that relations name."""
        named: set[str] = set()
        for definition in self._definitions:
            metadata: dict[str, Any] = definition.get("metadata") or {}
            relations: dict[str, dict[str, Any]] = metadata.get("relations") or {}
            for relation in relations.values():
                types: list[dict[str, Any]] = relation.get("directly_related_user_types", [])
                named |= {each["type"] for each in types}
        return frozenset(named)

    async def pin(self) -> None:
        """Do it once; UNAVAILABLE while OpenFGA is away, and the next call tries again."""
        if self._pinned:
            return
        async with self._opening:
            if not self._pinned:
                try:
                    await self._find()
                except StoreLost as error:
                    raise unavailable(error) from error

    def unpin(self) -> None:
        """Look again at the next call."""
        self._pinned = False

    async def _find(self) -> None:
        async with self._alone():
            self._client.set_store_id(await self._find_store())
            self._client.set_authorization_model_id(await self._find_model())
        self._pinned = True

    async def _find_store(self) -> str:
        found = await reaching(lambda: self._client.list_stores({"name": self._name}))
        if found.stores:
            return found.stores[0].id
        request = CreateStoreRequest(name=self._name)
        created = await reaching(lambda: self._client.create_store(request))
        log.info("openfga.store_created", store=created.id)
        return created.id

    async def _find_model(self) -> str:
        answer = await reaching(self._client.read_latest_authorization_model)
        latest = answer.authorization_model
        if latest is not None:
            sanitized = self._client._api_client.sanitize_for_serialization(latest)
            if same_model(sanitized, self._model):
                return latest.id
        async with self._feed.taking_away([EVERYTHING]):
            written = await reaching(lambda: self._client.write_authorization_model(self._model))
        log.info("openfga.model_written", model=written.authorization_model_id)
        return written.authorization_model_id


def same_model(one: Any, other: Any) -> bool:
    """Whether two models say the same; the server fills in what is empty."""
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
