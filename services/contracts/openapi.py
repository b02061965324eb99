"""OpenAPI 3.1, emitted from the table of services: one document per app, and one for the edge.

`python -m services.contracts.openapi` writes the documents; with `--check` it fails where they differ.
"""

import functools
import json
import sys
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import (
    GenerateJsonSchema,
    JsonSchemaMode,
    JsonSchemaValue,
    models_json_schema,
)
from pydantic_core import core_schema
from typing_extensions import override

from services.contracts.emitted import emit
from services.contracts.openapi_parts import (
    EVENT_STREAM_EXAMPLE,
    EXAMPLES,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    RATE_HEADERS,
    SECURITY_SCHEMES,
)
from services.contracts.scopes import KEY_SCOPES
from services.contracts.services import SERVICES
from services.kit.contract import RpcMethod, RpcService
from services.kit.errors import CATALOGUE, CLIENT_CLOSED_REQUEST, ErrorBody, ErrorCode, RpcError

Json = dict[str, Any]

FOLDER: Final = Path(__file__).parent / "openapi"
EDGE: Final = "yocaso"
VERSION: Final = "0.1.0"
REF: Final = "#/components/schemas/{model}"
EVERY_CALL: Final = (
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.INTERNAL,
    ErrorCode.UNAVAILABLE,
)
EVERY_EDGE_CALL: Final = (
    ErrorCode.RATE_LIMITED,
    ErrorCode.UPSTREAM_ERROR,
    ErrorCode.DEADLINE_EXCEEDED,
)
EVERY_SIGNED_IN_CALL: Final = (
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.RATE_LIMITED,
)
EVERY_INTERNAL_CALL: Final = (ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED)
EVERY_IDEMPOTENT_CALL: Final = (ErrorCode.ABORTED, ErrorCode.IDEMPOTENCY_KEY_REUSED)


class WireSchema(GenerateJsonSchema):
    """The schema of the wire: no titles, and a field that has no value is left out of a reply, never null."""

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        """Names are clear as they are."""
        return False

    @override
    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Null is accepted in a request only."""
        if self.mode == "serialization":
            return self.generate_inner(schema["schema"])
        return super().nullable_schema(schema)

    @override
    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """A default as the wire shows it."""
        result = super().default_schema(schema)
        if "default" in result and result["default"] is None:
            del result["default"]
        if result.get("type") == "string" and isinstance(result.get("default"), int):
            result["default"] = str(result["default"])
        return result


@functools.cache
def app_document(app_id: str) -> Json:
    """The document of one app, with its internal methods, as it answers inside."""
    services = [service for service in SERVICES if service.app_id == app_id]
    paths = {
        service.path(method): _path_item(service, method, inside=True)
        for service in services
        for method in service.methods
    }
    return _document(f"Yocaso {app_id}", services, paths, schemes=("sidecar", "identity"))


@functools.cache
def edge_document() -> Json:
    """The document of the edge: what clients may call."""
    paths = {
        service.edge_path(method): _path_item(service, method, inside=False)
        for service in SERVICES
        for method in service.methods
        if not method.internal
    }
    services = [s for s in SERVICES if any(not method.internal for method in s.methods)]
    document = _document("Yocaso", services, paths, schemes=("bearer", "apiKey"))
    document["components"]["headers"] = RATE_HEADERS
    return document


def documents() -> dict[str, Json]:
    """Every document by the name of its file."""
    apps = sorted({service.app_id for service in SERVICES})
    return {**{app_id: app_document(app_id) for app_id in apps}, EDGE: edge_document()}


def _document(
    title: str, services: Iterable[RpcService], paths: Json, schemes: tuple[str, ...]
) -> Json:
    services = list(services)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": VERSION,
            "summary": "Durable, streamed conversations.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": _short(s), "description": s.summary} for s in services],
        "paths": paths,
        "components": {
            "schemas": _schemas(services),
            "securitySchemes": {name: SECURITY_SCHEMES[name] for name in schemes},
        },
    }


def _schemas(services: Iterable[RpcService]) -> Json:
    models: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {
        (ErrorBody, "serialization"): None
    }
    for service in services:
        for method in service.methods:
            models[(method.request, "validation")] = None
            models[(method.response, "serialization")] = None
    _, definitions = models_json_schema(
        list(models), by_alias=True, ref_template=REF, schema_generator=WireSchema
    )
    found: Json = definitions["$defs"]
    return {name: found[name] for name in sorted(found)}


def _path_item(service: RpcService, method: RpcMethod, *, inside: bool) -> Json:
    item: Json = {"post": _operation(service, method, inside=inside)}
    if method.stream:
        item["get"] = _get_operation(service, method, inside=inside)
    return item


def _operation(service: RpcService, method: RpcMethod, *, inside: bool) -> Json:
    operation: Json = {
        "operationId": f"{_short(service)}.{method.name}",
        "tags": [_short(service)],
        "summary": method.summary,
        "description": _described(method),
        "security": _security(method, inside=inside),
    }
    if headers := _headers(method):
        operation["parameters"] = headers
    operation["requestBody"] = {
        "required": bool(_request_schema(method).get("required")),
        "content": {"application/json": _body(method)},
    }
    operation["responses"] = _responses(method, inside=inside)
    return operation


def _security(method: RpcMethod, *, inside: bool) -> list[Json]:
    """By which credentials it can be called, each with the scope that it needs (a role, in OpenAPI's words)."""
    if inside:
        return [{"sidecar": []} if method.scope is None else {"sidecar": [], "identity": []}]
    if method.scope is None:
        return []
    schemes = ("bearer", "apiKey") if method.scope in KEY_SCOPES else ("bearer",)
    return [{scheme: [method.scope]} for scheme in schemes]


def _get_operation(service: RpcService, method: RpcMethod, *, inside: bool) -> Json:
    """The same stream for a browser's EventSource, which can only GET."""
    operation = _operation(service, method, inside=inside)
    operation["operationId"] += ".Get"
    del operation["requestBody"]
    operation["parameters"] = [*_query(method), *operation.get("parameters", [])]
    return operation


def _headers(method: RpcMethod) -> list[Json]:
    headers = [IDEMPOTENCY_KEY] if method.idempotent else []
    return [*headers, LAST_EVENT_ID] if method.stream else headers


def _query(method: RpcMethod) -> list[Json]:
    schema = _request_schema(method)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", []),
            "schema": _without_null(field),
        }
        for name, field in schema["properties"].items()
    ]


def _without_null(schema: Json) -> Json:
    """A query has no way to say null."""
    options = [option for option in schema.get("anyOf", []) if option != {"type": "null"}]
    if len(options) != 1:
        return schema
    return {**options[0], **{key: value for key, value in schema.items() if key != "anyOf"}}


def _body(method: RpcMethod) -> Json:
    schema = _request_schema(method)
    required = set(schema.get("required", []))
    named = ((name, f"{method.request.__name__}.{name}") for name in schema.get("properties", {}))
    example = {
        name: EXAMPLES.get(full, EXAMPLES.get(name))
        for name, full in named
        if name in required and (full in EXAMPLES or name in EXAMPLES)
    }
    return {"schema": _ref(method.request), "example": example}


def _responses(method: RpcMethod, *, inside: bool) -> Json:
    by_status: dict[int, list[ErrorCode]] = {}
    for code in sorted(_codes(method, inside=inside), key=list(ErrorCode).index):
        by_status.setdefault(int(CATALOGUE[code].status), []).append(code)
    responses: Json = {"200": _success(method)}
    if method.stream:
        responses["204"] = {"description": "The reader has seen the terminal event already."}
    for status in sorted(by_status):
        responses[str(status)] = _failure(status, by_status[status])
    if not inside:
        for status in ("200", str(int(HTTPStatus.TOO_MANY_REQUESTS))):
            responses[status].setdefault("headers", {}).update(
                {name: {"$ref": f"#/components/headers/{name}"} for name in RATE_HEADERS}
            )
    return responses


def _codes(method: RpcMethod, *, inside: bool) -> set[ErrorCode]:
    codes = {*method.raises, *EVERY_CALL}
    if method.scope is not None:
        codes.update(EVERY_SIGNED_IN_CALL)
    elif inside:
        codes.update(EVERY_INTERNAL_CALL)
    if method.idempotent:
        codes.update(EVERY_IDEMPOTENT_CALL)
    if not inside:
        codes.update(EVERY_EDGE_CALL)
        if method.scope in KEY_SCOPES:
            codes.add(ErrorCode.BUDGET_EXCEEDED)
    return codes


def _success(method: RpcMethod) -> Json:
    if not method.stream:
        return {
            "description": _first_line(method.response),
            "content": {"application/json": {"schema": _ref(method.response)}},
        }
    return {
        "description": (
            "Server-sent events: `id` is the seq, `event` the type, `data` one event as JSON. The terminal event is "
            "last. `reconnect` asks the client to come back with Last-Event-ID; `error` ends a stream that may no longer be "
            "read, with an RpcError as its data. Comments keep the connection open."
        ),
        # An event's data, by which the text of the stream is made; `schema` describes one frame's JSON.
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "x-event-schema": _ref(method.response),
                "example": EVENT_STREAM_EXAMPLE,
            }
        },
    }


def _failure(status: int, codes: list[ErrorCode]) -> Json:
    response: Json = {
        "description": f"{_phrase(status)}: {', '.join(codes)}",
        "content": {
            "application/json": {
                "schema": _ref(ErrorBody),
                "example": _error_example(codes[0]),
            }
        },
    }
    if any(CATALOGUE[code].retryable for code in codes):
        response["headers"] = {
            "Retry-After": {
                "description": "Seconds, where the server knows when to come back.",
                "schema": {"type": "integer"},
            }
        }
    return response


def _error_example(code: ErrorCode) -> Json:
    return json.loads(RpcError(code, "What went wrong, in a sentence.").to_body().to_json())


def _phrase(status: int) -> str:
    return "Client closed request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase


def _described(method: RpcMethod) -> str:
    if method.internal:
        note = "Not reachable through the edge."
    elif method.public:
        note = "Needs no sign-in."
    else:
        note = f"Needs the scope `{method.scope}`."
    return " ".join(part for part in (_first_line(method.request), note) if part)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).strip().split("\n\n", 1)[0].replace("\n", " ")


def _request_schema(method: RpcMethod) -> Json:
    return method.request.model_json_schema(
        by_alias=True, mode="validation", ref_template=REF, schema_generator=WireSchema
    )


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": REF.format(model=model.__name__)}


def _short(service: RpcService) -> str:
    return service.name.rsplit(".", 1)[-1]


def _render(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the documents, or with `--check` name those that differ; the exit code is 1 when one does."""
    wanted = {FOLDER / f"{name}.json": _render(document) for name, document in documents().items()}
    return emit(wanted, arguments, FOLDER.glob("*.json"))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
