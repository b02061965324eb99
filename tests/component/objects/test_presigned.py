"""Presigned requests of clients without credentials, and those that are refused."""

import asyncio
import hashlib
import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from yarl import URL

from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.objects import (
    ObjectStore,
    ObjectStoreSettings,
    PresignedRequest,
    Upload,
    UploadedPart,
)
from tests.component.objects.contents import ALWAYS, MIB, is_stored, leftovers
from tests.requirements import requirement
from tests.support.wait import wait_until

HOUR = timedelta(hours=1)
CONTENT = b"content of a client"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


async def send(
    request: PresignedRequest,
    content: bytes | None = None,
    *,
    url: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Mapping[str, str], bytes]:
    """Send a request as a client does, or with another URL or other headers."""
    asked = request.headers if headers is None else headers
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session,
        session.request(
            request.method,
            # The client must not normalise a signed URL.
            URL(url or request.url, encoded=True),
            data=None if content is None else io.BytesIO(content),
            headers={name: value for name, value in asked.items() if name != "Content-Length"},
        ) as reply,
    ):
        return reply.status, reply.headers, await reply.read()


@requirement("kit:objects:presigned")
async def test_a_client_stores_and_fetches_an_object(objects: ObjectStore) -> None:
    request = await objects.presigned.put(
        "signed/a", HOUR, content_length=len(CONTENT), content_type="text/plain", sha256=SHA256
    )
    assert abs(request.expires_at - datetime.now(UTC) - HOUR) < timedelta(minutes=1)
    assert request.url not in repr(request)
    assert (await send(request, CONTENT))[0] == 200
    info = await objects.head("signed/a")
    assert (info.size, info.content_type, info.sha256) == (len(CONTENT), "text/plain", SHA256)
    status, headers, body = await send(
        await objects.presigned.get("signed/a", HOUR, filename='Zürich "1".txt')
    )
    assert (status, body) == (200, CONTENT)
    expected = "attachment; filename*=UTF-8''Z%C3%BCrich%20%221%22.txt"
    assert headers["Content-Disposition"] == expected


@requirement("kit:objects:presigned")
@pytest.mark.parametrize(
    ("content", "changed"),
    [
        (CONTENT + b"!", {}),
        (CONTENT[:-1], {}),
        (CONTENT[:-1] + b"!", {}),
        (CONTENT, {"Content-Type": "text/html"}),
        (CONTENT, {"x-amz-checksum-sha256": "A" * 43 + "="}),
        (CONTENT, {"x-amz-checksum-sha256": None}),
    ],
    ids=["longer", "shorter", "other bytes", "other type", "other hash", "no hash"],
)
async def test_other_content_than_signed_is_refused(
    objects: ObjectStore, content: bytes, changed: dict[str, str | None]
) -> None:
    request = await objects.presigned.put(
        "signed/other", HOUR, content_length=len(CONTENT), content_type="text/plain", sha256=SHA256
    )
    headers = {**request.headers, **changed}
    sent = {name: value for name, value in headers.items() if value is not None}
    assert (await send(request, content, headers=sent))[0] in (400, 403)
    assert not await is_stored(objects, "signed/other")


@requirement("kit:objects:presigned")
async def test_a_changed_or_unsigned_url_is_refused(objects: ObjectStore) -> None:
    await objects.put("signed/secret", CONTENT)
    await objects.put("signed/shown", CONTENT)
    request = await objects.presigned.get("signed/shown", HOUR)
    assert (await send(request))[0] == 200
    last = "0" if request.url[-1] != "0" else "1"
    changed = [
        request.url.replace("signed/shown", "signed/secret"),
        request.url.replace("X-Amz-Expires=3600", "X-Amz-Expires=86400"),
        request.url[:-1] + last,
        request.url + "&response-content-type=text/html",
        request.url.partition("?")[0],
    ]
    assert [(await send(request, url=url))[0] for url in changed] == [403] * len(changed)
    put = PresignedRequest("PUT", request.url, {}, request.expires_at)
    assert (await send(put, b"overwritten"))[0] == 403
    assert await objects.get("signed/shown") == CONTENT


@requirement("kit:objects:presigned")
async def test_an_expired_request_is_refused(objects: ObjectStore) -> None:
    await objects.put("signed/expired", CONTENT)
    request = await objects.presigned.get("signed/expired", timedelta(seconds=1))

    async def refused() -> bool:
        return (await send(request))[0] == 403

    await wait_until(refused, what="the expiry", every=0.2)


@pytest.mark.parametrize(
    "expires", [timedelta(0), timedelta(seconds=-1), timedelta(hours=24, seconds=1)]
)
async def test_an_expiry_out_of_bounds_is_refused(objects: ObjectStore, expires: timedelta) -> None:
    with pytest.raises(RpcError) as refused:
        await objects.presigned.get("signed/a", expires)
    assert refused.value.violations[0].field == "expires"


async def test_clients_get_the_address_at_which_they_reach_the_service(
    settings: ObjectStoreSettings,
) -> None:
    public = settings.model_copy(update={"public_url": "https://files.example.com"})
    objects = ObjectStore(public)
    try:
        await objects.put("signed/public", CONTENT)
        request = await objects.presigned.get("signed/public", HOUR)
        assert request.url.startswith("https://files.example.com/yocaso/signed/public?")
    finally:
        await objects.close()


async def upload_part(objects: ObjectStore, upload: Upload, number: int, content: bytes) -> str:
    request = await objects.uploads.presign_part(upload, number, HOUR, content_length=len(content))
    status, headers, _ = await send(request, content)
    assert status == 200
    return headers["ETag"]


@requirement("kit:objects:uploads")
async def test_a_client_uploads_parts_in_any_order_and_again(objects: ObjectStore) -> None:
    upload = await objects.uploads.begin("upload/a", content_type="text/plain")
    sent = {1: b"a" * 5 * MIB, 2: b"b" * 5 * MIB, 3: b"c"}
    await upload_part(objects, upload, 1, b"replaced")
    etags = await asyncio.gather(
        *(upload_part(objects, upload, number, sent[number]) for number in (3, 1, 2))
    )
    assert not await is_stored(objects, "upload/a")
    parts = [
        UploadedPart(number=number, etag=etag)
        for number, etag in zip((3, 1, 2), etags, strict=True)
    ]
    etag = await objects.uploads.complete(upload, parts)
    assert await objects.uploads.complete(upload, parts) == etag
    await objects.uploads.abort(upload)
    assert await objects.get("upload/a") == b"".join(sent.values())
    info = await objects.head("upload/a")
    assert (info.etag, info.content_type, info.sha256) == (etag, "text/plain", None)


@requirement("kit:objects:uploads")
async def test_an_aborted_upload_is_gone(objects: ObjectStore) -> None:
    upload = await objects.uploads.begin("upload/aborted")
    etag = await upload_part(objects, upload, 1, CONTENT)
    request = await objects.uploads.presign_part(upload, 2, HOUR)
    await objects.uploads.abort(upload)
    assert (await send(request, CONTENT))[0] == 404
    with pytest.raises(RpcError) as missing:
        await objects.uploads.complete(upload, [UploadedPart(number=1, etag=etag)])
    assert missing.value.code is ErrorCode.NOT_FOUND
    assert not await is_stored(objects, "upload/aborted")


async def test_parts_that_cannot_be_joined_are_refused(objects: ObjectStore) -> None:
    upload = await objects.uploads.begin("upload/parts")
    etags = [await upload_part(objects, upload, number, CONTENT) for number in (1, 2)]
    small = [UploadedPart(number=at, etag=etag) for at, etag in enumerate(etags, 1)]
    absent = [UploadedPart(number=3, etag=etags[0])]
    for parts in (small, absent, [small[0], small[0]], []):
        with pytest.raises(RpcError) as refused:
            await objects.uploads.complete(upload, parts)
        assert refused.value.violations[0].field == "parts"
    await objects.uploads.abort(upload)


async def test_a_request_for_a_part_fits_only_that_part(objects: ObjectStore) -> None:
    upload = await objects.uploads.begin("upload/part")
    request = await objects.uploads.presign_part(upload, 1, HOUR, content_length=len(CONTENT))
    other = request.url.replace("partNumber=1", "partNumber=2")
    assert other != request.url
    assert (await send(request, CONTENT, url=other))[0] == 403
    assert (await send(request, CONTENT + b"!"))[0] == 403
    await objects.uploads.abort(upload)


@requirement("kit:objects:leftovers")
async def test_uploads_of_other_folders_are_not_leftovers_of_a_prefix(objects: ObjectStore) -> None:
    begun = [await objects.uploads.begin(key) for key in ("left/1/a", "left/10/b", "left/1/c")]
    assert sorted(await leftovers(objects, "left/1")) == ["left/1/a", "left/1/c"]
    found = [each async for each in objects.uploads.leftovers(ALWAYS, "left/")]
    assert {each.upload.upload_id for each in found} == {each.upload_id for each in begun}
    for upload in begun:
        await objects.uploads.abort(upload)
    assert await leftovers(objects, "left") == []
