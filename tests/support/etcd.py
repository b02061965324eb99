"""Lists the keys of an etcd server, such as the one in Dapr's scheduler, over gRPC."""

from typing import Any

import grpc.aio

RANGE = "/etcdserverpb.KV/Range"
ALL_KEYS = b"\x0a\x01\x00\x12\x01\x00\x40\x01"
"""A RangeRequest with `key` (1) and `range_end` (2) a zero byte, which selects all keys, and `keys_only` (8)."""
_KVS, _KEY = 2, 1
_BYTES = 2
_UNLIMITED = (("grpc.max_receive_message_length", -1),)


async def keys(address: str) -> list[str]:
    async with grpc.aio.insecure_channel(address, _UNLIMITED) as channel:
        call: Any = channel.unary_unary(RANGE)
        return keys_of(await call(ALL_KEYS, timeout=20))


def keys_of(answer: bytes) -> list[str]:
    found = [dict(_fields(row)) for number, row in _fields(answer) if number == _KVS]
    return [row[_KEY].decode(errors="replace") for row in found]


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == _BYTES:
            found.append((tag >> 3, message[at : at + value]))
            at += value
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
