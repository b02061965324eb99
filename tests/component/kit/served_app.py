"""An app whose stream ends when the app drains."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from services.kit.http.dependencies import provide
from services.kit.http.draining import Draining


def create_app() -> FastAPI:
    app = FastAPI()
    draining = Draining()
    provide(app, draining)

    async def events() -> AsyncIterator[bytes]:
        ended = asyncio.Event()
        with draining.on_begin(ended.set):
            yield b": open\n\n"
            await ended.wait()
            yield b"event: reconnect\n\n"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    del stream
    return app
