"""The SSE decoder: any split of the bytes gives the same events, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.http.sse_decoder import MAX_EVENT_BYTES, OversizeEvent, SseDecoder
from tests.requirements import requirement

lines = st.sampled_from(
    ["data: {}", "data:x", "data", "data: é🙂\u2028", ": c", "event: x", "id: 1", "", "", "junk"]
)
streams = st.lists(st.tuples(lines, st.sampled_from(["\n", "\r", "\r\n"]))).map(
    lambda found: "".join(line + end for line, end in found).encode()
)


def decoded(*pieces: bytes) -> list[str]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@requirement("model:chunk-boundaries")
@given(streams, st.booleans(), st.data())
def test_any_split_gives_the_same_events(stream: bytes, bom: bool, data: st.DataObject) -> None:
    # One more blank line, so that a trailing carriage return is not half of a CRLF.
    whole = b"\xef\xbb\xbf" * bom + stream + b"\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert decoded(*pieces) == decoded(whole)


@given(streams, st.data())
def test_type_and_id_do_not_depend_on_the_split_either(stream: bytes, data: st.DataObject) -> None:
    whole = stream + b"\n\n"
    at = data.draw(st.integers(0, len(whole)))
    split, at_once = SseDecoder(), SseDecoder()
    found = [*split.events(whole[:at]), *split.events(whole[at:])]
    assert found == list(at_once.events(whole))


def test_an_event_has_its_type_its_data_and_the_last_id() -> None:
    stream = b"event: lost\n\n: c\nid: 7\nevent: text\ndata: a\n\ndata: b\n\nid: 8\0\ndata: c\n\nid\ndata: d\n\n"
    assert list(SseDecoder().events(stream)) == [
        ("text", "a", "7"),
        ("message", "b", "7"),
        ("message", "c", "7"),
        ("message", "d", ""),
    ]


def test_single_bytes_give_the_same_events() -> None:
    stream = b": PROCESSING\r\n\r\ndata: a\r\ndata: b\r\n\r\ndata: [DONE]\n\n"
    assert decoded(*(stream[at : at + 1] for at in range(len(stream)))) == ["a\nb", "[DONE]"]


def test_an_event_without_its_blank_line_is_incomplete() -> None:
    assert decoded(b"data: a\n") == []


@pytest.mark.parametrize("line", [b"data: ", b": ", b""])
def test_an_endless_line_is_refused_at_the_limit(line: bytes) -> None:
    with pytest.raises(OversizeEvent):
        decoded(line + b"x" * MAX_EVENT_BYTES + b"x")
