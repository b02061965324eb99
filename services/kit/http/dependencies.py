"""Dependencies of routes: the composition root registers values once, and routes get them by type."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request

T = TypeVar("T")

_PROVIDED: Final = "provided"


def provide(app: FastAPI, *values: object) -> None:
    """Register dependencies of an app's routes, each under its own type."""
    known: dict[type, object] = getattr(app.state, _PROVIDED, {})
    setattr(app.state, _PROVIDED, {**known, **{type(value): value for value in values}})


def get_dependency(app: FastAPI, kind: type[T]) -> T:
    """The registered value of a type.

    Raises:
        KeyError: there is none.
    """
    known: dict[type, Any] = getattr(app.state, _PROVIDED)
    return known[kind]


def provided(kind: type[T]) -> Callable[[Request], Awaitable[T]]:
    """For `Annotated[T, Depends(provided(T))]` in the signature of a route."""

    async def resolve(request: Request) -> T:
        return get_dependency(request.app, kind)

    return resolve
