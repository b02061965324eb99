"""What the user's commands do, and how an answer is shown."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from services.cli.chat.client import ChatClient
from services.cli.chat.transcript import Transcript
from services.cli.edge import CallError

_HISTORY: Final = 20
_HELP: Final = """\
/new               begin another conversation
/list              list your conversations
/open ID           go on with one of them
/cancel            cancel the running turn (Ctrl-C does so while an answer comes)
/quit              leave (as does Ctrl-D)
Anything else is a message."""


class Chat:
    """One user's terminal: the conversation that is open, and the turn that runs."""

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
        """Go on with a conversation and show its last messages, or begin one."""
        if conversation is None:
            created = await self._client.call(
                "create-conversation", {"model": self._model} if self._model else {}
            )
            self._conversation = str(created["conversationId"])
            self._write(f"new conversation {self._conversation}\n")
            return
        page = await self._client.call(
            "list-messages",
            {"conversationId": conversation, "limit": _HISTORY, "order": "DESCENDING"},
        )
        self._conversation = conversation
        for message in reversed(page.get("messages", [])):
            speaker = "you" if message["role"] == "USER" else str(message["role"]).lower()
            cut = " [cut off]" if message.get("incomplete") else ""
            self._write(f"\n{speaker}> {message['text']}{cut}\n")

    async def obey(self, line: str) -> bool:
        """Do what a line says; False when the user leaves."""
        command, _, argument = line.partition(" ")
        if command in ("/quit", "/exit"):
            return False
        try:
            if not command.startswith("/"):
                await self.send(line)
            elif command in self._commands:
                await self._commands[command](argument.strip())
            else:
                self._write(f"{command} is not known; /help lists what is\n")
        except CallError as error:
            self._write(f"\n[{error}]\n")
        return True

    async def send(self, text: str) -> None:
        """Ask, and show the answer as it comes."""
        turn = self._turn = Transcript()
        body: dict[str, Any] = {"conversationId": self._conversation, "text": text}
        if self._model:
            body["model"] = self._model
        self._write("\n")
        try:
            async for event in self._client.ask(
                body, position=lambda: turn.last_seq, is_over=lambda: turn.is_over
            ):
                shown = turn.take(event)
                if shown.restarted:
                    self._write("\n[the answer begins again]\n")
                self._write(shown.text)
        finally:
            self._turn = None
        endings = {"run.failed": f"\n[{turn.error}]", "run.cancelled": "\n[cancelled]"}
        self._write(endings.get(turn.outcome, "") + "\n")

    async def cancel(self) -> None:
        """Cancel the running turn, whether this terminal began it or another."""
        turn_id = self._turn.turn_id if self._turn else ""
        named = {"conversationId": self._conversation}
        if not turn_id:
            turn_id = str(
                (await self._client.call("get-conversation", named)).get("activeTurnId", "")
            )
        if not turn_id:
            self._write("[no turn runs]\n")
            return
        await self._client.call("cancel-turn", {**named, "turnId": turn_id})

    async def cancel_quietly(self) -> None:
        """Cancel a turn that may be ending by itself."""
        try:
            await self.cancel()
        except CallError as error:
            self._write(f"\n[{error}]\n")

    async def _open_named(self, conversation: str) -> None:
        if not conversation:
            self._write("/open needs the id of a conversation; /list shows them\n")
            return
        await self.open(conversation)

    async def _list(self) -> None:
        page = await self._client.call("list-conversations", {})
        for conversation in page.get("conversations", []):
            mark = "*" if conversation["conversationId"] == self._conversation else " "
            count = conversation["messageCount"]
            title = conversation.get("title") or "untitled"
            self._write(f"{mark} {conversation['conversationId']}  {title} ({count} messages)\n")

    async def _help(self) -> None:
        self._write(_HELP + "\n")
