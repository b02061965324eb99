"""One W3C trace crosses the edge, the apps, the workflow and the model call."""

import json
import uuid
from pathlib import Path
from typing import Any

from tests.e2e.talk import calls, prompt
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until


@requirement("kit:telemetry")
async def test_a_clients_trace_arrives_at_the_model(
    platform: Platform, alice: Client, conversation: str, trace_file: Path
) -> None:
    # The first answer fails, so that the workflow holds the wait for the second.
    trace, said = uuid.uuid4().hex, prompt(attempts=[{"status": 500}, {"tokens": 2}])
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    await alice.must("SendMessage", headers, conversationId=conversation, text=said.text)
    asked = await calls(platform, said)
    assert [call["traceparent"].split("-")[1] for call in asked] == [trace, trace]

    def spans() -> list[dict[str, Any]] | None:
        found = spans_of(trace_file, trace)
        names = {span["name"] for span in found}
        wanted = {
            "POST /yocaso.llm.v1.ConversationService/SendMessage",
            "ConversationActor.BeginTurn",
            "POST /yocaso.workflows.v1.WorkflowService/StartWorkflow",
            "model.call",
        }
        return found if wanted <= names else None

    found = await wait_until(spans, what="the spans of the turn")
    by_id = {span["context"]["span_id"].removeprefix("0x"): span for span in found}
    assert {by_id[call["traceparent"].split("-")[2]]["name"] for call in asked} == {"model.call"}
    assert not [span for span in found if said.word in json.dumps(span)]


def spans_of(file: Path, trace: str) -> list[dict[str, Any]]:
    """The spans of one trace; a line without its end is still being written."""
    whole, _, _ = file.read_text().rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines() if trace in line]
    return [span for span in lines if span["context"]["trace_id"].removeprefix("0x") == trace]
