"""The edge's configuration in KrakenD's format, rendered from the table of services.

`python -m services.contracts.edge` writes `services/edge/krakend.json`; with `--check` it only says whether that
file differs. What depends on the machine stays a flexible-configuration template ({{ env `NAME` }}), which the
edge fills in at start.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from services.contracts.emitted import emit
from services.contracts.services import SERVICES
from services.kit.contract import RpcMethod, RpcService
from services.kit.errors import CATALOGUE, HELP_BASE_URL

Json = dict[str, Any]

FILE: Final = Path(__file__).parents[1] / "edge" / "krakend.json"
NAMESPACE: Final = "yocaso/edge"
RENDERER: Final = "flush"
"""The renderer that the edge registers with Lura: it passes every chunk on at once."""
JWKS_PATH: Final = "/.well-known/jwks.json"
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
"""Set by the edge, from a credential that it has verified; a route without a validator passes none on."""
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


def configuration(services: Sequence[RpcService] = SERVICES) -> Json:
    """The whole file: settings of the service, then one endpoint per route that clients may call."""
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
        "endpoints": [_jwks_endpoint(), *_rpc_endpoints(services)],
    }


def _errors() -> Json:
    return {
        code: {"status": int(traits.status), "retryable": traits.retryable}
        for code, traits in CATALOGUE.items()
    }


def _rpc_endpoints(services: Sequence[RpcService]) -> list[Json]:
    return [
        _rpc_endpoint(service, method, verb)
        for service in services
        for method in service.methods
        if not method.internal
        for verb in (("POST", "GET") if method.stream else ("POST",))
    ]


def _rpc_endpoint(service: RpcService, method: RpcMethod, verb: str) -> Json:
    backend = f"/v1.0/invoke/{service.app_id}/method{service.path(method)}"
    extra: Json = {} if method.public else {"auth/validator": VALIDATOR}
    own = {
        name: True for name in ("stream", "public", "completes", "waits") if getattr(method, name)
    }
    if own:
        extra[NAMESPACE] = own
    return {
        "endpoint": service.edge_path(method),
        "method": verb,
        "timeout": f"{method.timeout_seconds:g}s",
        "input_headers": [*PUBLIC_HEADERS, *(() if method.public else IDENTITY_HEADERS)],
        "input_query_strings": ["*"] if verb == "GET" else [],
        "extra_config": extra,
        "backend": [_backend(verb, backend)],
    }


def _jwks_endpoint() -> Json:
    return {
        "endpoint": JWKS_PATH,
        "method": "GET",
        "timeout": "5s",
        "input_headers": ["Accept", "Traceparent", "X-Request-Id"],
        "backend": [_backend("GET", f"/v1.0/invoke/auth/method{JWKS_PATH}")],
    }


def _backend(verb: str, path: str) -> Json:
    return {"method": verb, "url_pattern": path, "encoding": "no-op"}


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` say whether it differs; the exit code is 1 when it does."""
    return emit({FILE: json.dumps(configuration(), indent=2) + "\n"}, arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
