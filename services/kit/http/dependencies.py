"""What routes work with: the composition root provides it once, and a route takes it by its type."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request

T = TypeVar("T")

_PROVIDED: Final = "provided"


def provide(app: FastAPI, *values: object) -> None:
    """Let the routes of an app take these values, each by its own type."""
    known: dict[type, object] = getattr(app.state, _PROVIDED, {})
    setattr(app.state, _PROVIDED, {**known, **{type(value): value for value in values}})


def taken(app: FastAPI, kind: type[T]) -> T:
    """The value of a type that the app was provided with.

    Raises:
        KeyError: it was not.
    """
    known: dict[type, Any] = getattr(app.state, _PROVIDED)
    return known[kind]


def provided(kind: type[T]) -> Callable[[Request], Awaitable[T]]:
    """For `Annotated[T, Depends(provided(T))]` in the signature of a route."""

    async def take(request: Request) -> T:
        return taken(request.app, kind)

    return take
