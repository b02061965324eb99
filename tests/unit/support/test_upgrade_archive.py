"""The times in a dump move together, wherever they are written."""

from datetime import timedelta

from tests.component.upgrade.archive import moved

DAY = timedelta(days=1)


def test_times_of_columns_and_of_json_move() -> None:
    line = '2026-11-27 10:00:00.5+00\t{"at": "2026-11-27T10:00:00Z"}\t2026-11-27\n'
    assert moved(line, DAY) == (
        '2026-11-28 10:00:00.500000Z\t{"at": "2026-11-28T10:00:00Z"}\t2026-11-27\n'
    )


def test_times_in_json_that_is_stored_as_bytes_move() -> None:
    stored, later = (f'{{"at":"2026-11-{day}T10:00:00Z","text":"é"}}' for day in (27, 28))
    line = rf"key	\\x{stored.encode().hex()}	etag"
    assert moved(line, DAY) == rf"key	\\x{later.encode().hex()}	etag"


def test_other_bytes_and_texts_stay() -> None:
    line = r"\\x08ff7b22	2026-11	at 10:00:00	tab\tnew"
    assert moved(line, DAY) == line
