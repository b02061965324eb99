"""The keys are found among the other fields of etcd's answer."""

from tests.support.etcd import keys_of


def _field(number: int, value: bytes) -> bytes:
    assert len(value) < 300
    length = (
        bytes([len(value)])
        if len(value) < 128
        else bytes([len(value) % 128 | 128, 1 + (len(value) >= 256)])
    )
    return bytes([number << 3 | 2]) + length + value


def test_keys_are_read_from_an_answer_with_versions_and_counts() -> None:
    long = "dapr/jobs/" + "x" * 190
    rows = [
        _field(1, key.encode()) + b"\x10\x96\x01\x18\x07\x20\x01"  # revisions and a version
        for key in ("dapr/jobs/one", long)
    ]
    header = _field(1, b"\x08\x96\x01\x18\x02")
    answer = header + b"".join(_field(2, row) for row in rows) + b"\x20\x02"  # and a count
    assert keys_of(answer) == ["dapr/jobs/one", long]


def test_an_empty_store_has_no_keys() -> None:
    assert keys_of(_field(1, b"\x08\x01")) == []
