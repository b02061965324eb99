"""Generates the edge's configuration in KrakenD's format.

Machine-dependent values stay templates ({{ env `NAME` }}) that the edge fills in at start.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from services.codegen.files import ROOT
from services.contracts.apps import APPS
from services.kit.contract import AnyMethod
from services.kit.errors import HELP_BASE_URL, catalogue
from services.kit.manifest import App

Json = dict[str, Any]

FILE: Final = ROOT / "services" / "edge" / "krakend.json"
NAMESPACE: Final = "yocaso/edge"
RENDERER: Final = "flush"
"""The edge's own Lura renderer: flushes every chunk."""
LEEWAY: Final = "30s"
PUBLIC_HEADERS: Final = (
    "Accept",
    "Baggage",
    "Content-Length",
    "Content-Type",
    "Idempotency-Key",
    "X-Call-Id",
    "Last-Event-Id",
    "Traceparent",
    "Tracestate",
    "X-Request-Id",
)
IDENTITY_HEADERS: Final = ("X-Key-Id", "X-Scopes", "X-User-Email", "X-User-Id")
"""Set by the edge from a verified credential; a public endpoint forwards none."""
VALIDATOR: Final[Json] = {
    "alg": "RS256",
    "jwk_url": "{{ env `EDGE_JWKS_URL` }}",
    "disable_jwk_security": True,  # the sidecar is on loopback and speaks plain HTTP
    "issuer": "{{ env `EDGE_ISSUER` }}",
    "audience": ["{{ env `EDGE_AUDIENCE` }}"],
    "leeway": LEEWAY,
    "propagate_claims": [
        ["sub", "x-user-id"],
        ["email", "x-user-email"],
        ["scope", "x-scopes"],
        ["key_id", "x-key-id"],
    ],
}


def files() -> dict[Path, str]:
    return {FILE: json.dumps(configuration(), indent=2) + "\n"}


def configuration(apps: Sequence[App] = APPS) -> Json:
    """Service settings, and one endpoint per method that clients may call."""
    return {
        "$schema": "https://www.krakend.io/schema/v2.11/krakend.json",
        "version": 3,
        "name": "yocaso-edge",
        "host": ["{{ env `EDGE_SIDECAR_URL` }}"],
        "timeout": "30s",
        "read_header_timeout": "10s",
        "idle_timeout": "120s",
        "max_header_bytes": 65536,
        "max_idle_connections": 1024,
        "max_idle_connections_per_host": 512,
        "idle_connection_timeout": "90s",
        "dialer_timeout": "2s",
        "dialer_keep_alive": "15s",
        "disable_compression": True,
        "output_encoding": RENDERER,
        "extra_config": {
            "router": {
                "disable_access_log": True,
                "disable_health": True,
                "disable_redirect_fixed_path": True,
                "disable_redirect_trailing_slash": True,
                "forwarded_by_client_ip": False,
                "hide_version_header": True,
            },
            NAMESPACE: {"help_url": HELP_BASE_URL, "errors": _errors()},
        },
        "endpoints": [*_public_endpoints(apps), *_rpc_endpoints(apps)],
    }


def _errors() -> Json:
    return {code: {"status": code.status, "retryable": code.retryable} for code in catalogue()}


def _rpc_endpoints(apps: Sequence[App]) -> list[Json]:
    return [
        _rpc_endpoint(app, method, verb)
        for app in apps
        for method in app.methods
        if not method.internal
        for verb in method.verbs
    ]


def _rpc_endpoint(app: App, method: AnyMethod, verb: str) -> Json:
    flags = {
        "stream": method.is_stream,
        "public": method.public,
        "completes": method.completes,
        "waits": method.waits,
    }
    extra: Json = {} if method.public else {"auth/validator": VALIDATOR}
    if any(flags.values()):
        extra[NAMESPACE] = {name: True for name, is_set in flags.items() if is_set}
    return {
        "endpoint": method.edge_path,
        "method": verb,
        "timeout": f"{method.timeout_seconds:g}s",
        "input_headers": [*PUBLIC_HEADERS, *(() if method.public else IDENTITY_HEADERS)],
        "input_query_strings": ["*"] if verb == "GET" else [],
        "extra_config": extra,
        "backend": [_backend(verb, app, method.path)],
    }


def _public_endpoints(apps: Sequence[App]) -> list[Json]:
    return [
        {
            "endpoint": path,
            "method": "GET",
            "timeout": "5s",
            "input_headers": ["Accept", "Traceparent", "X-Request-Id"],
            "backend": [_backend("GET", app, path)],
        }
        for app in apps
        for path in app.public_paths
    ]


def _backend(verb: str, app: App, path: str) -> Json:
    url = f"/v1.0/invoke/{app.id}/method{path}"
    return {"method": verb, "url_pattern": url, "encoding": "no-op"}
