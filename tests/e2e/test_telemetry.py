"""One W3C trace crosses the edge, the apps, the workflow and the model call."""

import json
import uuid
from pathlib import Path
from typing import Any

from services.contracts.llm.conversations import SEND_MESSAGE
from services.contracts.workflows.service import START_WORKFLOW
from tests.e2e.actions import prompt
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until


@requirement("kit:telemetry")
async def test_a_clients_trace_reaches_the_model(
    platform: Platform, alice: Client, conversation: str, trace_file: Path
) -> None:
    # The first attempt fails, so that the workflow waits and makes the second.
    trace, said = uuid.uuid4().hex, prompt(attempts=[{"status": 500}, {"tokens": 2}])
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    await alice.must("SendMessage", headers, conversationId=conversation, text=said.text)
    asked = await platform.model_calls(said.word)
    assert [call["traceparent"].split("-")[1] for call in asked] == [trace, trace]

    def spans() -> list[dict[str, Any]] | None:
        found = spans_of(trace_file, trace)
        names = {span["name"] for span in found}
        wanted = {
            f"POST {SEND_MESSAGE.path}",
            "ConversationActor.begin_turn",
            f"POST {START_WORKFLOW.path}",
            "model.call",
        }
        return found if wanted <= names else None

    found = await wait_until(spans, what="the spans of the turn")
    by_id = {span["context"]["span_id"].removeprefix("0x"): span for span in found}
    assert {by_id[call["traceparent"].split("-")[2]]["name"] for call in asked} == {"model.call"}
    assert not [span for span in found if said.word in json.dumps(span)]


def spans_of(file: Path, trace: str) -> list[dict[str, Any]]:
    """The spans of one trace; an incomplete last line is skipped."""
    whole, _, _ = file.read_text().rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines() if trace in line]
    return [span for span in lines if span["context"]["trace_id"].removeprefix("0x") == trace]
