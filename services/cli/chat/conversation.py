"""Executes the user's commands and displays answers."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from services.cli.chat.client import ChatClient
from services.cli.chat.transcript import Transcript
from services.cli.edge import CallError
from services.contracts.llm.conversations import (
    CANCEL_TURN,
    CREATE_CONVERSATION,
    GET_CONVERSATION,
    LIST_CONVERSATIONS,
    LIST_MESSAGES,
)

_MESSAGES_SHOWN: Final = 20
"""Messages displayed when a conversation is opened."""
_HELP: Final = """\
/new               create a conversation
/list              list your conversations
/open ID           continue a conversation
/cancel            cancel the running turn, as does Ctrl-C during an answer
/quit              leave, as does Ctrl-D
Any other line is sent as a message."""


class Chat:
    """The open conversation of a terminal, and its running turn."""

    def __init__(self, client: ChatClient, model: str | None, write: Callable[[str], None]) -> None:
        self._client = client
        self._model = model
        self._write = write
        self._conversation = ""
        self._turn: Transcript | None = None
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/new": lambda _: self.open(None),
            "/list": lambda _: self._list(),
            "/open": self._open_named,
            "/cancel": lambda _: self.cancel(),
            "/help": lambda _: self._help(),
        }

    async def open(self, conversation: str | None) -> None:
        """Open a conversation and display its last messages; with None, create one."""
        if conversation is None:
            created = await self._client.call(
                CREATE_CONVERSATION, {"model": self._model} if self._model else {}
            )
            self._conversation = str(created["conversationId"])
            self._write(f"new conversation {self._conversation}\n")
            return
        page = await self._client.call(
            LIST_MESSAGES,
            {"conversationId": conversation, "limit": _MESSAGES_SHOWN, "order": "DESCENDING"},
        )
        self._conversation = conversation
        for message in reversed(page.get("messages", [])):
            speaker = "you" if message["role"] == "USER" else str(message["role"]).lower()
            cut = " [incomplete]" if message.get("incomplete") else ""
            self._write(f"\n{speaker}> {message['text']}{cut}\n")

    async def execute(self, line: str) -> bool:
        """Execute a command or send a message; False after /quit."""
        command, _, argument = line.partition(" ")
        if command in ("/quit", "/exit"):
            return False
        try:
            if not command.startswith("/"):
                await self.send(line)
            elif command in self._commands:
                await self._commands[command](argument.strip())
            else:
                self._write(f"{command} is not a command; /help lists the commands\n")
        except CallError as error:
            self._write(f"\n[{error}]\n")
        return True

    async def send(self, text: str) -> None:
        """Send a message and display the answer while it streams."""
        turn = self._turn = Transcript()
        body: dict[str, Any] = {"conversationId": self._conversation, "text": text}
        if self._model:
            body["model"] = self._model
        self._write("\n")
        try:
            async for event in self._client.stream_turn(
                body, position=lambda: turn.last_seq, is_over=lambda: turn.is_over
            ):
                update = turn.apply(event)
                if update.restarted:
                    self._write("\n[the answer restarts]\n")
                self._write(update.text)
        finally:
            self._turn = None
        endings = {"run.failed": f"\n[{turn.error}]", "run.cancelled": "\n[cancelled]"}
        self._write(endings.get(turn.outcome, "") + "\n")

    async def cancel(self) -> None:
        """Cancel the running turn, also one begun by another client."""
        turn_id = self._turn.turn_id if self._turn else ""
        named = {"conversationId": self._conversation}
        if not turn_id:
            found = await self._client.call(GET_CONVERSATION, named)
            turn_id = str(found.get("activeTurnId", ""))
        if not turn_id:
            self._write("[no turn is running]\n")
            return
        await self._client.call(CANCEL_TURN, {**named, "turnId": turn_id})

    async def try_cancel(self) -> None:
        """Cancel the running turn and display an error instead of raising it."""
        try:
            await self.cancel()
        except CallError as error:
            self._write(f"\n[{error}]\n")

    async def _open_named(self, conversation: str) -> None:
        if not conversation:
            self._write("/open needs a conversation id; /list shows the ids\n")
            return
        await self.open(conversation)

    async def _list(self) -> None:
        page = await self._client.call(LIST_CONVERSATIONS, {})
        for conversation in page.get("conversations", []):
            mark = "*" if conversation["conversationId"] == self._conversation else " "
            count = conversation["messageCount"]
            title = conversation.get("title") or "untitled"
            self._write(f"{mark} {conversation['conversationId']}  {title} ({count} messages)\n")

    async def _help(self) -> None:
        self._write(_HELP + "\n")
