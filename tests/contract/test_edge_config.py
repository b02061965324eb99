"""The edge's configuration follows from the contracts: a route for each public method and none for internal ones."""

from typing import Any

from services.codegen.edge import IDENTITY_HEADERS, configuration
from services.contracts.apps import METHODS
from services.contracts.auth.tokens import JWKS_PATH
from services.kit.contract import AnyMethod
from tests.requirements import requirement

ENDPOINTS: list[dict[str, Any]] = configuration()["endpoints"]
ROUTES = {(e["method"], e["endpoint"]): e for e in ENDPOINTS}
JWKS = ("GET", JWKS_PATH)


def _methods(*, internal: bool) -> list[AnyMethod]:
    return [method for method in METHODS if method.internal is internal]


@requirement("edge:config")
def test_the_routes_are_the_public_methods_and_the_key_set() -> None:
    wanted = {
        (verb, method.edge_path) for method in _methods(internal=False) for verb in method.verbs
    }
    assert set(ROUTES) == wanted | {JWKS}
    assert len(ROUTES) == len(ENDPOINTS)


@requirement("edge:config")
def test_no_route_leads_to_an_internal_method() -> None:
    internal = _methods(internal=True)
    reachable = {backend["url_pattern"] for e in ENDPOINTS for backend in e["backend"]}
    assert internal
    assert not [m.name for m in internal if any(p.endswith(m.path) for p in reachable)]


@requirement("edge:config")
def test_a_route_calls_its_method_through_the_sidecar_with_the_method_s_timeout() -> None:
    for method in _methods(internal=False):
        for verb in method.verbs:
            endpoint = ROUTES[verb, method.edge_path]
            assert endpoint["timeout"] == f"{method.timeout_seconds:g}s"
            assert endpoint["backend"] == [
                {
                    "method": verb,
                    "url_pattern": f"/v1.0/invoke/{method.service.app_id}/method{method.path}",
                    "encoding": "no-op",
                }
            ]
            assert endpoint["input_query_strings"] == (["*"] if verb == "GET" else [])


@requirement("edge:jwt")
def test_every_route_but_the_key_set_and_the_public_methods_verifies_a_credential() -> None:
    unverified = {r for r, e in ROUTES.items() if "auth/validator" not in e.get("extra_config", {})}
    public = {("POST", method.edge_path) for method in _methods(internal=False) if method.public}
    assert public
    assert unverified == public | {JWKS}


@requirement("edge:identity-headers")
def test_a_route_without_a_validator_forwards_no_identity() -> None:
    names = {name.lower() for name in IDENTITY_HEADERS}
    for endpoint in ENDPOINTS:
        extra = endpoint.get("extra_config", {})
        passed = {name.lower() for name in endpoint["input_headers"]} & names
        assert passed == (names if "auth/validator" in extra else set())
        assert extra.get("yocaso/edge", {}).get("public", False) is (
            "auth/validator" not in extra and endpoint["endpoint"] != JWKS[1]
        )


@requirement("edge:identity-headers")
def test_no_credential_and_no_dapr_header_is_forwarded() -> None:
    names = {name.lower() for endpoint in ENDPOINTS for name in endpoint["input_headers"]}
    assert not {"authorization", "x-api-key", "cookie", "*"} & names
    assert not [name for name in names if name.startswith("dapr-")]
