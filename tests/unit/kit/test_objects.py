"""The object store without a server: keys, ranges, settings, parts."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import RpcError
from services.kit.settings import load_settings
from services.kit.storage.objects import (
    ByteRange,
    ContentReference,
    ContentStore,
    ObjectStore,
    ObjectStoreSettings,
    Upload,
)
from services.kit.storage.objects import store as module
from services.kit.storage.objects.keys import check_content_type, check_key, check_prefix
from tests.requirements import requirement

CREDENTIALS = {"YOCASO_OBJECTS_KEY_ID": "id", "YOCASO_OBJECTS_SECRET": "hidden"}
SETTINGS = {"YOCASO_OBJECTS_BUCKET": "files", "YOCASO_OBJECTS_URL": "http://127.0.0.1:1"}
BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "../a",
    "a/./b",
    ".sgwtmp/a",
    "a\\b",
    "a b",
    "a\nb",
    "a\0b",
    "a?b",
    "a%2e%2e",
    "ä",
    "a" * 256,
    "/".join(["a" * 200] * 6),
]


def field_of(error: pytest.ExceptionInfo[RpcError]) -> str:
    return error.value.violations[0].field


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A store whose server does not exist: what is refused here was never sent."""
    for name, value in (SETTINGS | CREDENTIALS).items():
        monkeypatch.setenv(name, value)
    return ObjectStore(load_settings(ObjectStoreSettings))


@requirement("kit:objects:keys")
@pytest.mark.parametrize("key", BAD_KEYS)
async def test_no_call_takes_a_key_that_is_no_safe_path(objects: ObjectStore, key: str) -> None:
    upload = Upload(key=key, upload_id="u")
    calls = [
        objects.put(key, b""),
        objects.get(key),
        objects.head(key),
        objects.delete(key),
        objects.delete_many(["a", key]),
        objects.presigned.get(key, timedelta(minutes=1)),
        objects.uploads.begin(key),
        objects.uploads.abort(upload),
        objects.uploads.complete(upload, []),
    ]
    for call in calls:
        with pytest.raises(RpcError) as refused:
            await call
        assert field_of(refused) == "key"


@requirement("kit:objects:keys")
@given(st.text(st.sampled_from("aZ09._=@+-/%\\ \n\0é"), max_size=20))
def test_an_accepted_key_stays_below_its_folder(key: str) -> None:
    try:
        check_key(key)
    except RpcError:
        return
    assert all(part and not part.startswith(".") for part in key.split("/"))
    assert key.isascii()
    assert key.isprintable()


@pytest.mark.parametrize("key", ["a", "a/b.txt", "users/u_1/2026-11-27/x=1@2+3", "-a", "a..b"])
def test_usual_keys_are_accepted(key: str) -> None:
    assert check_key(key) == key


def test_a_prefix_is_a_whole_folder() -> None:
    assert [check_prefix(each) for each in ("", "users/1", "users/1/")] == [
        "",
        "users/1/",
        "users/1/",
    ]
    with pytest.raises(RpcError) as refused:
        check_prefix("users//")
    assert field_of(refused) == "prefix"


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        ("text/plain", True),
        ("application/vnd.api+json", True),
        ("text/html; charset=utf-8", True),
        ("text", False),
        ("", False),
        ("text/plain\r\nx-amz-acl: public-read", False),
        ("text/plain, text/html", False),
        ("text/ü", False),
    ],
)
def test_a_content_type_cannot_carry_another_header(content_type: str, accepted: bool) -> None:
    if accepted:
        assert check_content_type(content_type) == content_type
        return
    with pytest.raises(RpcError) as refused:
        check_content_type(content_type)
    assert field_of(refused) == "contentType"


@pytest.mark.parametrize("byte_range", [ByteRange(-1), ByteRange(0, 0), ByteRange(3, -1)])
async def test_an_impossible_range_is_refused(objects: ObjectStore, byte_range: ByteRange) -> None:
    with pytest.raises(RpcError) as refused:
        await objects.get("a", byte_range)
    assert field_of(refused) == "range"


@pytest.mark.parametrize("sha256", ["", "0" * 63, "A" * 64, "g" * 64])
async def test_a_malformed_hash_is_refused(objects: ObjectStore, sha256: str) -> None:
    with pytest.raises(RpcError) as refused:
        await objects.put("a", b"", sha256=sha256)
    assert field_of(refused) == "sha256"


async def test_a_prefix_of_leftovers_and_contents_is_checked(objects: ObjectStore) -> None:
    with pytest.raises(RpcError):
        ContentStore(objects, "../other")
    with pytest.raises(RpcError):
        await anext(aiter(objects.uploads.leftovers(datetime.now(UTC), "../other")))


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "0" * 63, "0" * 64 + "/a"])
def test_a_forged_reference_is_refused(sha256: str) -> None:
    with pytest.raises(ValueError, match="sha256"):
        ContentReference.model_validate({"sha256": sha256, "size": 1})


@requirement("kit:objects:streams")
@given(st.lists(st.integers(0, 40), max_size=20))
async def test_parts_have_one_size_and_join_to_the_stream(sizes: list[int]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number, size in enumerate(sizes):
            yield bytes([number]) * size

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART_BYTES", 7)
        parts = [part async for part in module._parts_of(chunks(), 10_000)]
    assert b"".join(parts) == b"".join([chunk async for chunk in chunks()])
    assert {len(part) for part in parts[:-1]} <= {7}
    assert 0 <= len(parts[-1]) <= 7
    assert parts[-1] or len(parts) == 1


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "YOCASO_OBJECTS_BUCKET"),
        ({"YOCASO_OBJECTS_BUCKET": "No_Bucket"}, "YOCASO_OBJECTS_BUCKET"),
        (SETTINGS | {"YOCASO_OBJECTS_URL": "http://user:hidden@host"}, "YOCASO_OBJECTS_URL"),
        (SETTINGS | {"YOCASO_OBJECTS_URL": "ftp://host"}, "YOCASO_OBJECTS_URL"),
        (
            SETTINGS | {"YOCASO_OBJECTS_PUBLIC_URL": "https://host/path"},
            "YOCASO_OBJECTS_PUBLIC_URL",
        ),
        (SETTINGS | {"YOCASO_OBJECTS_KEY_ID": "id"}, "YOCASO_OBJECTS_SECRET"),
        (SETTINGS | {"YOCASO_OBJECTS_SECRET": "hidden"}, "YOCASO_OBJECTS_KEY_ID"),
    ],
)
def test_an_invalid_setting_is_named_and_not_shown(
    variables: dict[str, str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        load_settings(ObjectStoreSettings)
    shown = capsys.readouterr().err
    assert named in shown
    assert "hidden" not in shown


def test_credentials_are_not_shown(objects: ObjectStore) -> None:
    assert "hidden" not in repr(load_settings(ObjectStoreSettings))
