"""The edge answers generated requests as the OpenAPI document says, and never with 5xx."""

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.requirements import requirement
from tests.support.platform import Client, Platform

pytestmark = pytest.mark.disturbs  # these tests are not async: they hold the event loop

# Only responses are checked: the protobuf JSON mapping also accepts requests outside the schema, such as snake_case
# names and numbers as strings.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
DOCUMENT = Path(__file__).parents[2] / "services/contracts/openapi/yocaso.json"
EXAMPLES = 6
LONG_EXAMPLES = 200
SETTINGS = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONGEST_POLL_SECONDS = 1

schema = schemathesis.openapi.from_path(DOCUMENT)
# A generated credential beside the fuzzer's own is always refused.
schema.config.generation.update(with_security_parameters=False)


@pytest.fixture(scope="module")
async def fuzzer(platform: Platform) -> AsyncIterator[Client]:
    async with platform.client("fuzzer") as client:
        yield client


@pytest.fixture(scope="module")
async def leaver(platform: Platform) -> AsyncIterator[Client]:
    """A user for DeleteAccount, after which every call of the user is refused."""
    async with platform.client("leaver") as client:
        yield client


@pytest.fixture(scope="module")
async def known(fuzzer: Client) -> dict[str, str]:
    """Ids of existing objects."""
    conversation = await fuzzer.conversation()
    sent = await fuzzer.must("SendMessage", conversationId=conversation, text="hello")
    return {
        "conversationId": conversation,
        "turnId": sent["turn"]["turnId"],
        "object": f"conversation:{conversation}",
    }


def aim(fields: Any, known: dict[str, str]) -> None:
    """Replace generated ids by existing ones, to get past the lookup, and disable long polls."""
    if not isinstance(fields, dict):
        return
    fields.update(
        {name: value for name, value in known.items() if isinstance(fields.get(name), str)}
    )
    if isinstance(fields.get("waitSeconds"), int | float) and fields["waitSeconds"] <= 60:
        fields["waitSeconds"] = min(fields["waitSeconds"], LONGEST_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls the edge, every other time with ids of existing objects, and checks the responses."""

    fuzzer: Client
    leaver: Client
    known: dict[str, str]
    connections: requests.Session
    turns: Iterator[bool] = field(default_factory=lambda: itertools.cycle([True, False]))

    def require_conformance(self, case: schemathesis.Case) -> None:
        leaves = case.operation.path.endswith("/delete-account")
        client = self.leaver if leaves else self.fuzzer
        if next(self.turns):
            aim(case.body, self.known)
            aim(case.query, self.known)
        response = case.call(client.url, self.connections, client.headers(), timeout=30)
        case.validate_response(response, checks=CHECKS)


@pytest.fixture(scope="module")
def caller(fuzzer: Client, leaver: Client, known: dict[str, str]) -> Iterator[Caller]:
    with requests.Session() as connections:
        yield Caller(fuzzer, leaver, known, connections)


@requirement("kit:openapi-conformance")
@schema.parametrize()
@settings(SETTINGS, max_examples=EXAMPLES, derandomize=True)
def test_an_operation_answers_as_its_document_says(case: schemathesis.Case, caller: Caller) -> None:
    caller.require_conformance(case)


@pytest.mark.long
@pytest.mark.timeout(600)
@requirement("kit:openapi-conformance")
@schema.parametrize()
@settings(SETTINGS, max_examples=LONG_EXAMPLES)
def test_an_operation_answers_many_more_requests_as_its_document_says(
    case: schemathesis.Case, caller: Caller
) -> None:
    caller.require_conformance(case)
