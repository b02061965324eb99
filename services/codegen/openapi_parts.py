"""What the OpenAPI documents say in the same words again and again: headers, security schemes, examples."""

from typing import Any, Final

Json = dict[str, Any]

IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": (
        "Makes the call safe to repeat for 24 hours: the same key and body give the stored reply, the same key "
        "with another body gives 422, and 409 with Retry-After while the first call is in progress."
    ),
    "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
    "example": "6f1c2c1e-5d0f-4a7b-9a55-0d7c1f0b7f11",
}
LAST_EVENT_ID: Final[Json] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `id` of the last event that was seen; the stream goes on after it.",
    "schema": {"type": "string", "pattern": r"^\d{1,18}$"},
    "example": "17",
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
        "description": "Added by the app's own sidecar; reach the app by Dapr service invocation.",
    },
    "identity": {
        "type": "apiKey",
        "in": "header",
        "name": "x-user-id",
        "description": "Whom the call is for; believed only from the apps that the access policy names.",
    },
}
RATE_HEADERS: Final[Json] = {
    "RateLimit-Policy": {
        "description": "The limits that count this call: calls (`q`) in so many seconds (`w`), by name. Absent where "
        "none is set.",
        "schema": {"type": "string"},
        "example": '"address";q=600;w=60, "user";q=1200;w=60',
    },
    "RateLimit": {
        "description": "What is left of each (`r`), and in how many seconds calls begin to be given back (`t`).",
        "schema": {"type": "string"},
        "example": '"address";r=598;t=60, "user";r=1199;t=60',
    },
}
EXAMPLES: Final[Json] = {
    "conversationId": "conv_01k9x2m4q7r8s5t6v0w1y2z3a4",
    "turnId": "turn_01k9x2m4q7r8s5t6v0w1y2z3b5",
    "title": "Trip to Lisbon",
    "text": "Which museums are open on Monday?",
    "userId": "ada",
    "email": "ada@example.com",
    "limit": 20,
    "after": "0",
    "name": "nightly import",
    "scopes": ["conversations:read"],
    "keyId": "key_01k9x2m4q7r8s5t6v0w1y2z3c6",
    "object": "conversation:conv_01k9x2m4q7r8s5t6v0w1y2z3a4",
    "subject": "user:grace",
    "linkId": "link_01k9x2m4q7r8s5t6v0w1y2z3d7",
    "OpenShareLinkRequest.token": "yl_anExampleThatOpensNothing",
    "RevokeTokenRequest.token": "yr_anExampleThatIsNobodysSession",
    "refreshToken": "yr_anExampleThatIsNobodysSession",
    "subjectToken": "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl",
    "subjectTokenType": "urn:ietf:params:oauth:token-type:id_token",
    "idToken": "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl",
    "deletionId": "deletion_01k9x2m4q7r8s5t6v0w1y2z3e8",
}
"""By the field's name, or by its message and name where messages differ."""
EVENT_STREAM_EXAMPLE: Final = (
    'id: 1\nevent: run.started\ndata: {"seq":"1","type":"run.started","attempt":1,"data":{},'
    '"createdAt":"2026-11-21T08:00:00Z"}\n\n'
    'id: 2\nevent: text.delta\ndata: {"seq":"2","type":"text.delta","attempt":1,"data":{"text":"The "},'
    '"createdAt":"2026-11-21T08:00:00.1Z"}\n\n'
)
