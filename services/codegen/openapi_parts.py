"""Parts that several OpenAPI operations share."""

from typing import Any, Final

Json = dict[str, Any]

IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": (
        "Makes the call safe to repeat for 24 hours: the same key and body return the stored response, the same key "
        "with another body returns 422, and 409 with Retry-After while the first call is in progress."
    ),
    "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
    "example": "6f1c2c1e-5d0f-4a7b-9a55-0d7c1f0b7f11",
}
LAST_EVENT_ID: Final[Json] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `id` of the last event received; the stream continues after it.",
    "schema": {"type": "string", "pattern": r"^\d{1,18}$"},
    "example": "17",
}
URL_TOO_LONG: Final[Json] = {
    "description": "The URL and the headers are longer than 64 KiB together. POST carries the same fields in its body.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
SECURITY_SCHEMES: Final[Json] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token: `yocaso token --user U --email E` prints one on a laptop. A server may put "
        "its API key here instead.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "An API key, `yk_live_…` or `yk_test_…`; never beside a bearer token, never in a query.",
    },
    "sidecar": {
        "type": "apiKey",
        "in": "header",
        "name": "dapr-api-token",
        "description": "Added by the app's own sidecar; call the app by Dapr service invocation.",
    },
    "identity": {
        "type": "apiKey",
        "in": "header",
        "name": "x-user-id",
        "description": "The user the call is made for; accepted only from apps that the access policy names.",
    },
}
RATE_HEADERS: Final[Json] = {
    "RateLimit-Policy": {
        "description": "The limits that apply to this call: at most `q` calls in `w` seconds, by name. Absent if no "
        "limit is set.",
        "schema": {"type": "string"},
        "example": '"address";q=600;w=60, "user";q=1200;w=60',
    },
    "RateLimit": {
        "description": "Calls left per limit (`r`), and seconds until used calls are returned (`t`).",
        "schema": {"type": "string"},
        "example": '"address";r=598;t=60, "user";r=1199;t=60',
    },
}
EVENT_STREAM_EXAMPLE: Final = (
    'id: 1\nevent: run.started\ndata: {"seq":"1","type":"run.started","attempt":1,"data":{},'
    '"createdAt":"2026-11-21T08:00:00Z"}\n\n'
    'id: 2\nevent: text.delta\ndata: {"seq":"2","type":"text.delta","attempt":1,"data":{"text":"The "},'
    '"createdAt":"2026-11-21T08:00:00.1Z"}\n\n'
)
