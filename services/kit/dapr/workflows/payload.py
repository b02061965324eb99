"""Values as the history stores them, and the limit of their size."""

import json
from typing import Any, Final

import pydantic
from pydantic import BaseModel, TypeAdapter

from services.kit.errors import ErrorCode, RpcError
from services.kit.references import AnyInstanceId, AnyWorkflow, EventRef, InstanceId

MAX_PAYLOAD_BYTES: Final = 16_384
"""Limit of inputs, results and events: the history stores each of them, so large data is passed by reference."""

_ID: Final = TypeAdapter[str](InstanceId)
_ANY_ID: Final = TypeAdapter[str](AnyInstanceId)


def bounded(value: Any, what: str) -> Any:
    """A value as the history stores it.

    Raises:
        RpcError: PAYLOAD_TOO_LARGE over `MAX_PAYLOAD_BYTES`, naming `what`.
    """
    payload = (
        value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
    )
    size = len(json.dumps(payload, ensure_ascii=False).encode())
    if size > MAX_PAYLOAD_BYTES:
        raise RpcError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"{what} has {size} bytes; {MAX_PAYLOAD_BYTES} are allowed: pass a reference.",
        )
    return payload


def start_payload(workflow: AnyWorkflow, instance_id: str, value: BaseModel) -> Any:
    """The input of a start, as the history stores it.

    Raises:
        RpcError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
    """
    require_id(instance_id)
    require_type(value, workflow.input, "input")
    return bounded(value, f"the input of {workflow.name}")


def event_value(
    workflow: AnyWorkflow,
    instance_id: str,
    event: EventRef[Any],
    value: BaseModel,
    event_id: str,
) -> Any:
    """The value of an event, as the history stores it.

    Raises:
        RpcError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
    """
    require_any_id(instance_id)
    require_id(event_id, "event_id")
    if event not in workflow.events:
        raise RpcError.invalid("event", f"is not an event of {workflow.name}")
    require_type(value, event.message, "value")
    return bounded(value, f"the event {event.name}")


def require_type(value: BaseModel, message: type[BaseModel], field: str) -> None:
    """Require that a value is of its reference's type.

    Raises:
        RpcError: INVALID_ARGUMENT, naming `field`.
    """
    if not isinstance(value, message):
        raise RpcError.invalid(field, f"must be a {message.__name__}")


def require_id(value: str, field: str = "instance_id") -> None:
    """Require an id of 1 to 100 letters, digits, underscores and hyphens.

    Raises:
        RpcError: INVALID_ARGUMENT, naming `field`.
    """
    _require(_ID, value, field, "must have 1 to 100 letters, digits, underscores or hyphens")


def require_any_id(value: str) -> None:
    """Require the id of a started instance or of a child.

    Raises:
        RpcError: INVALID_ARGUMENT, naming `instance_id`.
    """
    _require(_ANY_ID, value, "instance_id", "is neither an instance id nor one of a child")


def _require(adapter: TypeAdapter[str], value: str, field: str, rule: str) -> None:
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError:
        raise RpcError.invalid(field, rule) from None
