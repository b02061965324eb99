"""Stores a stream and ends: `python -m tests.component.objects.uploader KEY SIZE`."""

import asyncio
import sys

from services.kit.settings import load_settings
from services.kit.storage.objects import ObjectStore, ObjectStoreSettings
from tests.component.objects.contents import stream


async def main(key: str, size: int) -> None:
    objects = ObjectStore(load_settings(ObjectStoreSettings))
    await objects.put_stream(key, stream(size))
    await objects.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
