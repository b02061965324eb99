"""Subscriptions: which function handles a topic's events, and the routes by which the sidecar delivers them."""

import base64
import functools
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from services.kit.access.identity import refuse_invocation
from services.kit.dapr.pubsub.inbox import Handler, Inbox
from services.kit.dapr.pubsub.relay import PUBSUB
from services.kit.http.dependencies import get_dependency
from services.kit.http.rpc import dependencies_of
from services.kit.topics import AnyTopic

log = structlog.get_logger()

SUBSCRIBE_PATH: Final = "/dapr/subscribe"
GIVEN: Final = ("event", "transaction")

F = TypeVar("F", bound=Callable[..., Awaitable[None]])


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic's handler, with a resolver per dependency."""

    topic: AnyTopic
    function: Callable[..., Awaitable[None]]
    dependencies: Mapping[str, Callable[[Request], Awaitable[Any]]]

    async def bind(self, request: Request) -> Handler:
        """The handler with its dependencies resolved."""
        resolved = {name: await resolve(request) for name, resolve in self.dependencies.items()}
        return functools.partial(self.function, **resolved)


class EventRouter:
    """Binds functions to topics. A function takes `event`, `transaction` and dependencies, as a route does."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}

    def subscribe(self, topic: AnyTopic) -> Callable[[F], F]:
        """Handle the events of a topic; its changes in `transaction` happen exactly once per event."""

        def register(function: F) -> F:
            if topic.name in self._subscriptions:
                raise TypeError(f"{topic.name} has two handlers")
            names = tuple(inspect.signature(function).parameters)[: len(GIVEN)]
            if names != GIVEN:
                raise TypeError(f"{function.__name__} needs the parameters (event, transaction)")
            dependencies = dependencies_of(function, given=GIVEN)
            self._subscriptions[topic.name] = Subscription(topic, function, dependencies)
            return function

        return register

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """By the topic's name."""
        return self._subscriptions


class Subscriptions:
    """The subscriptions of one app, and its routes `POST /events/<topic>`."""

    def __init__(
        self, app_id: str, topics: Iterable[AnyTopic], routers: Iterable[EventRouter]
    ) -> None:
        self.by_topic: dict[str, Subscription] = {}
        for router in routers:
            self.by_topic |= router.subscriptions
        declared, handled = {topic.name for topic in topics}, set(self.by_topic)
        if declared != handled:
            raise RuntimeError(
                f"{app_id}: `subscribes` and the handlers differ in {sorted(declared ^ handled)}"
            )

    def route(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        app.add_api_route(SUBSCRIBE_PATH, self._list, methods=["GET"], include_in_schema=False)
        for topic, subscription in self.by_topic.items():
            receive = functools.partial(_receive, subscription)
            app.add_api_route(
                f"/events/{topic}", receive, methods=["POST"], include_in_schema=False
            )

    async def take_undelivered(self, app: FastAPI) -> None:
        """Handle the events that the broker lost or has not delivered for a while, from the publishers' outboxes."""
        inbox = get_dependency(app, Inbox)
        topics = [subscription.topic for subscription in self.by_topic.values()]
        for topic, message in await inbox.undelivered(topics):
            subscription = self.by_topic[topic]
            handler = await subscription.bind(Request({"type": "http", "app": app}))
            is_done = await inbox.receive(subscription.topic, message, handler)
            log.warning("inbox.undelivered", topic=topic, done=is_done)

    async def _list(self) -> Response:
        """What daprd subscribes to, raw: its own dead-letter topic would also get events of a long outage."""
        return JSONResponse(
            [
                {
                    "pubsubname": PUBSUB,
                    "topic": topic,
                    "route": f"/events/{topic}",
                    "metadata": {"rawPayload": "true"},
                }
                for topic in self.by_topic
            ]
        )


async def _receive(subscription: Subscription, request: Request) -> Response:
    """Handle a delivery: daprd puts the message into a CloudEvent of its own.

    Answers 204, or 503 to get it again: daprd takes a 2xx without its body, of an app that died, for success.
    """
    refuse_invocation(request, "Events are delivered by the broker only.")
    message = base64.b64decode(json.loads(await request.body())["data_base64"])
    inbox, handler = get_dependency(request.app, Inbox), await subscription.bind(request)
    is_done = await inbox.receive(subscription.topic, message, handler)
    return Response(status_code=204 if is_done else 503)
