"""Generates OpenAPI 3.1: one document per app, and one for the edge."""

import functools
import json
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

from services.codegen.files import ROOT
from services.codegen.openapi_parts import (
    EVENT_STREAM_EXAMPLE,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    RATE_HEADERS,
    SECURITY_SCHEMES,
    URL_TOO_LONG,
)
from services.contracts.apps import APPS, KEY_SCOPES, SERVICES
from services.kit.contract import AnyMethod, RpcService
from services.kit.errors import (
    CLIENT_CLOSED_REQUEST,
    AnyErrorCode,
    ErrorBody,
    ErrorCode,
    RpcError,
    catalogue,
)
from services.kit.manifest import App

Json = dict[str, Any]

FOLDER: Final = ROOT / "services" / "contracts" / "openapi"
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
    """JSON Schema of the wire: no titles; a response omits absent fields, it never has null."""

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        """A title would repeat the field's name."""
        return False

    @override
    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Null is accepted in a request only."""
        if self.mode == "serialization":
            return self.generate_inner(schema["schema"])
        return super().nullable_schema(schema)

    @override
    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Omit a null default; write an Int64 default as a string."""
        result = super().default_schema(schema)
        if "default" in result and result["default"] is None:
            del result["default"]
        if result.get("type") == "string" and isinstance(result.get("default"), int):
            result["default"] = str(result["default"])
        return result


def files() -> dict[Path, str]:
    """The generated files and their content."""
    return {FOLDER / f"{name}.json": _render(document) for name, document in documents().items()}


def existing_files() -> Iterable[Path]:
    """Files present in the folder, which holds only generated files."""
    return FOLDER.glob("*.json")


@functools.cache
def app_document(app: App) -> Json:
    """The document of one app as other apps call it, with its internal methods."""
    paths = {method.path: _path_item(method, internal=True) for method in app.methods}
    return _document(f"Yocaso {app.id}", app.services, paths, schemes=("sidecar", "identity"))


@functools.cache
def edge_document() -> Json:
    """The document of the edge: methods that clients may call."""
    paths = {
        method.edge_path: _path_item(method, internal=False)
        for app in APPS
        for method in app.methods
        if not method.internal
    }
    services = [s for s in SERVICES if any(not method.internal for method in s.methods)]
    document = _document("Yocaso", services, paths, schemes=("bearer", "apiKey"))
    document["components"]["headers"] = RATE_HEADERS
    return document


def documents() -> dict[str, Json]:
    """Documents by file name."""
    return {**{app.id: app_document(app) for app in APPS if app.services}, EDGE: edge_document()}


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
        "tags": [{"name": s.short_name, "description": s.summary} for s in services],
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


def _path_item(method: AnyMethod, *, internal: bool) -> Json:
    item: Json = {"post": _operation(method, internal=internal)}
    if method.is_stream:
        item["get"] = _get_operation(method, internal=internal)
    return item


def _operation(method: AnyMethod, *, internal: bool) -> Json:
    operation: Json = {
        "operationId": f"{method.service.short_name}.{method.name}",
        "tags": [method.service.short_name],
        "summary": method.summary,
        "description": _describe(method),
        "security": _security(method, internal=internal),
    }
    if headers := _headers(method):
        operation["parameters"] = headers
    operation["requestBody"] = {
        "required": bool(_request_schema(method).get("required")),
        "content": {"application/json": _body(method)},
    }
    operation["responses"] = _responses(method, internal=internal)
    return operation


def _security(method: AnyMethod, *, internal: bool) -> list[Json]:
    """Accepted credentials, each with the required scope (OpenAPI calls it a role)."""
    if internal:
        return [{"sidecar": []} if method.scope is None else {"sidecar": [], "identity": []}]
    if method.scope is None:
        return []
    schemes = ("bearer", "apiKey") if method.scope in KEY_SCOPES else ("bearer",)
    return [{scheme: [method.scope]} for scheme in schemes]


def _get_operation(method: AnyMethod, *, internal: bool) -> Json:
    """The stream for a browser's EventSource, which can only GET."""
    operation = _operation(method, internal=internal)
    operation["operationId"] += ".Get"
    del operation["requestBody"]
    operation["parameters"] = [*_query(method), *operation.get("parameters", [])]
    if not internal:
        operation["responses"]["431"] = URL_TOO_LONG
    return operation


def _headers(method: AnyMethod) -> list[Json]:
    headers = [IDEMPOTENCY_KEY] if method.idempotent else []
    return [*headers, LAST_EVENT_ID] if method.is_stream else headers


def _query(method: AnyMethod) -> list[Json]:
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
    """A query string cannot express null."""
    options = [option for option in schema.get("anyOf", []) if option != {"type": "null"}]
    if len(options) != 1:
        return schema
    return {**options[0], **{key: value for key, value in schema.items() if key != "anyOf"}}


def _body(method: AnyMethod) -> Json:
    schema = _request_schema(method)
    fields = schema.get("properties", {})
    example = {
        name: fields[name]["examples"][0]
        for name in schema.get("required", [])
        if "examples" in fields[name]
    }
    return {"schema": _ref(method.request), "example": example}


def _responses(method: AnyMethod, *, internal: bool) -> Json:
    by_status: dict[int, list[AnyErrorCode]] = {}
    for code in sorted(_error_codes(method, internal=internal), key=catalogue().index):
        by_status.setdefault(code.status, []).append(code)
    responses: Json = {"200": _success(method)}
    if method.is_stream:
        responses["204"] = {"description": "The client has already received the terminal event."}
    for status in sorted(by_status):
        responses[str(status)] = _failure(status, by_status[status])
    if not internal:
        for status in ("200", str(int(HTTPStatus.TOO_MANY_REQUESTS))):
            responses[status].setdefault("headers", {}).update(
                {name: {"$ref": f"#/components/headers/{name}"} for name in RATE_HEADERS}
            )
    return responses


def _error_codes(method: AnyMethod, *, internal: bool) -> set[AnyErrorCode]:
    codes: set[AnyErrorCode] = {*method.raises, *EVERY_CALL}
    if method.scope is not None:
        codes.update(EVERY_SIGNED_IN_CALL)
    elif internal:
        codes.update(EVERY_INTERNAL_CALL)
    if method.idempotent:
        codes.update(EVERY_IDEMPOTENT_CALL)
    if not internal:
        codes.update(EVERY_EDGE_CALL)
        if method.scope in KEY_SCOPES:
            codes.add(ErrorCode.BUDGET_EXCEEDED)
    return codes


def _success(method: AnyMethod) -> Json:
    if not method.is_stream:
        return {
            "description": _first_paragraph(method.response),
            "content": {"application/json": {"schema": _ref(method.response)}},
        }
    return {
        "description": (
            "Server-sent events: `id` is the seq, `event` the type, `data` one event as JSON. The terminal event is "
            "last. `reconnect` asks the client to reconnect with Last-Event-ID; `error`, with an ErrorBody as its data, "
            "ends a stream that the caller may no longer read. Comments keep the connection open."
        ),
        # `x-event-schema` describes the JSON in `data` of one event.
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "x-event-schema": _ref(method.response),
                "example": EVENT_STREAM_EXAMPLE,
            }
        },
    }


def _failure(status: int, codes: list[AnyErrorCode]) -> Json:
    response: Json = {
        "description": f"{_phrase(status)}: {', '.join(codes)}",
        "content": {
            "application/json": {
                "schema": _ref(ErrorBody),
                "example": _error_example(codes[0]),
            }
        },
    }
    if any(code.retryable for code in codes):
        response["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait before a retry, if known.",
                "schema": {"type": "integer"},
            }
        }
    return response


def _error_example(code: AnyErrorCode) -> Json:
    return json.loads(RpcError(code, "What went wrong, in a sentence.").to_body().to_json())


def _phrase(status: int) -> str:
    return "Client closed request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase


def _describe(method: AnyMethod) -> str:
    if method.internal:
        note = "Not reachable through the edge."
    elif method.public:
        note = "Needs no sign-in."
    else:
        note = f"Needs the scope `{method.scope}`."
    return " ".join(part for part in (_first_paragraph(method.request), note) if part)


def _first_paragraph(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).strip().split("\n\n", 1)[0].replace("\n", " ")


def _request_schema(method: AnyMethod) -> Json:
    return method.request.model_json_schema(
        by_alias=True, mode="validation", ref_template=REF, schema_generator=WireSchema
    )


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": REF.format(model=model.__name__)}


def _render(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
