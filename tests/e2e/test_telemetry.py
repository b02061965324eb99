"""One W3C trace crosses the edge, the apps, the workflow and the model call."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from services.contracts.llm.conversations import SEND_MESSAGE, STREAM_MESSAGE
from services.contracts.workflows.service import START_WORKFLOW
from tests.e2e.actions import prompt
from tests.requirements import requirement
from tests.support.otlp import ReceivedSpan, SpanReceiver
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

CLIENT_SPAN: Final = "00f067aa0ba902b7"
HOPS: Final = (
    ("llm", "python", "internal", "model.call"),
    ("llm", "python", "internal", "turn.segment"),
    ("llm", "python", "server", f"POST {STREAM_MESSAGE.path}"),
    ("llm", "daprd", "server", f"CallLocal/llm{STREAM_MESSAGE.path}"),
    ("edge", "daprd", "client", f"CallLocal/llm{STREAM_MESSAGE.path}"),
    ("edge", "go", "client", f"POST /v1.0/invoke/llm/method{STREAM_MESSAGE.path}"),
    ("edge", "go", "server", f"POST {STREAM_MESSAGE.edge_path}"),
)
"""Spans of a streamed turn: app, recorder, kind and name, each the parent of the one before."""


@requirement("kit:telemetry")
async def test_a_clients_trace_reaches_the_model(
    own_platform: Platform, alice: Client, conversation: str, trace_file: Path
) -> None:
    # The first attempt fails, so that the workflow waits and makes the second.
    trace, said = uuid.uuid4().hex, prompt(attempts=[{"status": 500}, {"tokens": 2}])
    headers = {"traceparent": f"00-{trace}-{CLIENT_SPAN}-01"}
    await alice.must("SendMessage", headers, conversationId=conversation, text=said.text)
    asked = await own_platform.model_calls(said.word)
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


@requirement("edge:spans")
@requirement("kit:telemetry")
async def test_a_streamed_turn_is_one_trace_from_the_edge_to_the_model(
    own_platform: Platform, alice: Client, conversation: str, spans: SpanReceiver
) -> None:
    trace, said = uuid.uuid4().hex, prompt(tokens=3)
    headers = {"traceparent": f"00-{trace}-{CLIENT_SPAN}-01"}
    body = {"conversationId": conversation, "text": said.text}
    await alice.reader("StreamMessage", body, headers).run()
    (asked,) = await own_platform.model_calls(said.word)
    last = asked["traceparent"].split("-")[2]

    def complete() -> dict[str, ReceivedSpan] | None:
        found = spans.trace(trace)
        return found if len(path_to_the_client(found, last)) >= len(HOPS) else None

    received = await wait_until(complete, 20, "every span of the turn", every=0.2)
    reached = path_to_the_client(received, last)
    assert tuple((each.app, each.recorder, each.kind, each.name) for each in reached) == HOPS
    assert reached[-1].parent_id == CLIENT_SPAN
    assert "ConversationActor.begin_turn" in {each.name for each in received.values()}
    for secret in (said.word, alice.token, conversation):
        assert not [
            each for each in received.values() if each.app == "edge" and secret in repr(each)
        ]
    assert not [each for each in received.values() if said.word in repr(each)]


def path_to_the_client(spans: Mapping[str, ReceivedSpan], span_id: str) -> list[ReceivedSpan]:
    """A span and its ancestors, as far as they were received."""
    path: list[ReceivedSpan] = []
    while found := spans.get(span_id):
        path.append(found)
        span_id = found.parent_id
    return path


def spans_of(file: Path, trace: str) -> list[dict[str, Any]]:
    """The spans of one trace; an incomplete last line is skipped."""
    whole, _, _ = file.read_text().rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines() if trace in line]
    return [span for span in lines if span["context"]["trace_id"].removeprefix("0x") == trace]
