"""Pagination of lists."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, StringConstraints

MAX_PAGE: Final = 100
PageSize = Annotated[int, Field(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str, StringConstraints(max_length=512)]
"""Opaque: `nextCursor` of the previous page."""


class SortOrder(StrEnum):
    """Sort direction, by creation."""

    ASCENDING = "ASCENDING"
    DESCENDING = "DESCENDING"
