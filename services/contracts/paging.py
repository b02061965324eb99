"""Pages of lists: how long one is, and where the next begins."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, StringConstraints

MAX_PAGE: Final = 100
PageSize = Annotated[int, Field(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str, StringConstraints(max_length=512)]
"""Opaque; taken from `nextCursor` of the page before."""


class SortOrder(StrEnum):
    """The direction of a list, by creation."""

    ASCENDING = "ASCENDING"
    DESCENDING = "DESCENDING"
