"""An SMTP server whose behaviour a test sets."""

import asyncio
from email import message_from_bytes
from email.message import Message
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


class Mailbox:
    """Keeps what it accepts. `answer` refuses; while `pause` is cleared, no message is answered."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[str], Message]] = []
        self.answer = "250 OK"
        self.tries = 0
        self.pause = asyncio.Event()
        self.pause.set()
        self._server: asyncio.Server | None = None

    async def open(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, hostname="localhost", loop=loop), "127.0.0.1", port
        )

    async def close(self) -> None:
        if self._server is not None:
            self.pause.set()
            self._server.close()
            await self._server.wait_closed()

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:  # noqa: N802
        """Called by aiosmtpd for each message."""
        self.tries += 1
        await self.pause.wait()
        if self.answer.startswith("250"):
            content: Any = envelope.content
            self.messages.append((envelope.rcpt_tos, message_from_bytes(content)))
        return self.answer
