"""Token counts of the local tokenizer."""

import pytest

from services.llm.adapters.tokenizer import BpeTokenCounter
from tests.requirements import requirement


@requirement("turns:usage")
@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("hello world", 2), ("é", 1)])
def test_tokens_are_those_of_the_vocabulary(text: str, tokens: int) -> None:
    assert BpeTokenCounter().count(text) == tokens
