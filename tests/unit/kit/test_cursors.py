"""Cursors are valid for one list of one user only."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import ErrorCode, RpcError
from services.kit.http.cursors import decode_cursor, encode_cursor
from tests.requirements import requirement

SCOPE = "alice/messages/c1"


@given(st.text(), st.integers(0, 10**18 - 1))
def test_a_cursor_decodes_to_its_position(scope: str, position: int) -> None:
    assert decode_cursor(scope, encode_cursor(scope, position)) == position


@requirement("conversations:cursor-of-another")
@given(st.one_of(st.text(), st.text("AZaz09-_=", max_size=40)))
def test_a_malformed_cursor_is_refused(cursor: str) -> None:
    refused(cursor)


@requirement("conversations:cursor-of-another")
@pytest.mark.parametrize("scope", ["bob/messages/c1", "alice/messages/c2", ""])
def test_a_cursor_of_another_list_or_user_is_refused(scope: str) -> None:
    refused(encode_cursor(scope, 5))


@given(st.integers(0, 15), st.sampled_from("ghxyz!*/"))
def test_a_cursor_with_a_changed_hash_is_refused(at: int, by: str) -> None:
    mark, position = base64.urlsafe_b64decode(encode_cursor(SCOPE, 12) + "==").split(b":")
    changed = mark[:at] + by.encode() + mark[at + 1 :]
    refused(base64.urlsafe_b64encode(changed + b":" + position).decode().rstrip("="))


def refused(cursor: str) -> None:
    with pytest.raises(RpcError) as error:
        decode_cursor(SCOPE, cursor)
    assert error.value.code is ErrorCode.INVALID_ARGUMENT
