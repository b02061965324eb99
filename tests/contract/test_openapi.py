"""The documents are valid OpenAPI 3.1 and describe the contracts."""

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.codegen.openapi import documents, edge_document
from services.contracts.apps import KEY_SCOPES, METHODS
from services.kit.contract import AnyMethod
from tests.requirements import requirement

DOCUMENTS = documents()
EDGE_METHODS = [method for method in METHODS if not method.internal]


def _edge_operations(method: AnyMethod) -> list[dict[str, Any]]:
    return list(edge_document()["paths"][method.edge_path].values())


@requirement("kit:openapi")
@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_document_is_valid(name: str) -> None:
    OpenAPIV31SpecValidator(DOCUMENTS[name]).validate()


def test_the_edge_document_has_every_public_method_and_no_internal_one() -> None:
    assert set(edge_document()["paths"]) == {method.edge_path for method in EDGE_METHODS}


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_operation_ids_are_unique(name: str) -> None:
    ids = [o["operationId"] for item in DOCUMENTS[name]["paths"].values() for o in item.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("method", EDGE_METHODS, ids=lambda m: m.name)
def test_an_operation_documents_every_status_that_its_method_raises(method: AnyMethod) -> None:
    for operation in _edge_operations(method):
        assert {str(int(code.status)) for code in method.raises} <= set(operation["responses"])


@pytest.mark.parametrize("method", EDGE_METHODS, ids=lambda m: m.name)
def test_the_example_of_a_request_is_accepted_by_its_model(method: AnyMethod) -> None:
    body = edge_document()["paths"][method.edge_path]["post"]["requestBody"]
    method.request.model_validate(body["content"]["application/json"]["example"])


def test_header_parameters_are_documented_where_they_apply() -> None:
    for method in EDGE_METHODS:
        for operation in _edge_operations(method):
            names = {p["name"] for p in operation.get("parameters", []) if p["in"] == "header"}
            assert ("Idempotency-Key" in names) is method.idempotent
            assert ("Last-Event-ID" in names) is method.is_stream


def test_requests_refuse_unknown_fields_and_are_lower_camel_case() -> None:
    schemas = edge_document()["components"]["schemas"]
    for method in EDGE_METHODS:
        schema = schemas[method.request.__name__]
        assert schema["additionalProperties"] is False
        assert not [name for name in schema.get("properties", {}) if "_" in name]


@pytest.mark.parametrize("method", EDGE_METHODS, ids=lambda m: m.name)
def test_an_operation_says_which_credential_and_scope_it_needs(method: AnyMethod) -> None:
    wanted: list[dict[str, list[str]]] = []
    if method.scope:
        wanted = [{"bearer": [method.scope]}]
        wanted += [{"apiKey": [method.scope]}] if method.scope in KEY_SCOPES else []
    for operation in _edge_operations(method):
        assert operation["security"] == wanted
        assert ("403" in operation["responses"]) >= bool(method.scope)
        assert ("401" in operation["responses"]) >= bool(method.scope)


def test_every_edge_operation_documents_429_and_rate_limit_headers() -> None:
    for method in EDGE_METHODS:
        for operation in _edge_operations(method):
            for status in ("200", "429"):
                assert {"RateLimit", "RateLimit-Policy"} <= set(
                    operation["responses"][status]["headers"]
                )
            assert "Retry-After" in operation["responses"]["429"]["headers"]


def test_an_internal_document_requires_the_sidecar_and_for_scopes_an_identity() -> None:
    for method in METHODS:
        wanted = {"sidecar": [], "identity": []} if method.scope else {"sidecar": []}
        for operation in DOCUMENTS[method.service.app_id]["paths"][method.path].values():
            assert operation["security"] == [wanted]
