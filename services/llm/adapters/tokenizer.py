"""Counts tokens as OpenAI's models do; other providers' models differ by some percent."""

import importlib
from functools import cached_property
from typing import Any


class BpeTokenCounter:
    """`TokenCounter` by the o200k vocabulary, which is loaded (30 MB) when the first estimate is needed."""

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return int(self._vocabulary.count(text))

    @cached_property
    def _vocabulary(self) -> Any:
        library: Any = importlib.import_module("rs_bpe.bpe")
        return library.openai.o200k_base()
