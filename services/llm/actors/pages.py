"""Pagination of messages."""

from services.contracts.llm.conversations import ListMessagesRequest
from services.contracts.paging import SortOrder
from services.kit.http.cursors import decode_cursor


def page_seqs(last_seq: int, request: ListMessagesRequest, scope: str) -> range:
    after = decode_cursor(scope, request.cursor) if request.cursor else None
    if request.order is SortOrder.ASCENDING:
        first = (after or 0) + 1
        return range(first, min(first + request.limit, last_seq + 1))
    first = (after or last_seq + 1) - 1
    return range(first, max(first - request.limit, 0), -1)
