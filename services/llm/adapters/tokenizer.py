"""Counts tokens by OpenAI's vocabulary; other providers' models differ by a few percent."""

import importlib
from functools import cached_property
from typing import Any


class BpeTokenCounter:
    """`TokenCounter` over the o200k vocabulary (30 MB), loaded on first use."""

    def count(self, text: str) -> int:
        return int(self._vocabulary.count(text))

    @cached_property
    def _vocabulary(self) -> Any:
        library: Any = importlib.import_module("rs_bpe.bpe")
        return library.openai.o200k_base()
