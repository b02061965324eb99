"""Whatever is sent to the operations of the emitted document, the edge answers as the document says, and never 5xx."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
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

# A request against the schema may still be taken: the protobuf JSON mapping also reads snake_case names and numbers
# written as strings. So what is checked is the answer, not that everything outside the schema is refused.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
DOCUMENT = Path(__file__).parents[2] / "services/contracts/openapi/yocaso.json"
EXAMPLES = 20
LONGEST_POLL_SECONDS = 1

schema = schemathesis.openapi.from_path(DOCUMENT)
# A made-up credential beside the fuzzer's own would only ever be refused.
schema.config.generation.update(with_security_parameters=False)


@pytest.fixture(scope="module")
async def fuzzer(platform: Platform) -> AsyncIterator[Client]:
    """A user for all examples; a message that the model answers at once."""
    async with platform.client("fuzzer") as client:
        yield client


@pytest.fixture(scope="module")
async def leaver(platform: Platform) -> AsyncIterator[Client]:
    """A user who may go: after that, every call would be refused."""
    async with platform.client("leaver") as client:
        yield client


@pytest.fixture(scope="module")
async def known(fuzzer: Client) -> dict[str, str]:
    """Ids that exist."""
    conversation = await fuzzer.conversation()
    sent = await fuzzer.must("SendMessage", conversationId=conversation, text="hello")
    return {
        "conversationId": conversation,
        "turnId": sent["turn"]["turnId"],
        "object": f"conversation:{conversation}",
    }


def aim(fields: Any, known: dict[str, str]) -> None:
    """Name what exists, so that more than the lookup is reached, and wait for no long poll."""
    if not isinstance(fields, dict):
        return
    fields.update(
        {name: value for name, value in known.items() if isinstance(fields.get(name), str)}
    )
    if isinstance(fields.get("waitSeconds"), int | float) and fields["waitSeconds"] <= 60:
        fields["waitSeconds"] = min(fields["waitSeconds"], LONGEST_POLL_SECONDS)


turns = itertools.cycle([True, False])


@requirement("kit:openapi-conformance")
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_an_operation_answers_as_its_document_says(
    case: schemathesis.Case, fuzzer: Client, leaver: Client, known: dict[str, str]
) -> None:
    caller = leaver if case.operation.path.endswith("/delete-account") else fuzzer
    if next(turns):
        aim(case.body, known)
        aim(case.query, known)
    response = case.call(base_url=caller.url, headers=caller.headers(), timeout=30)
    case.validate_response(response, checks=CHECKS)
