"""The loop of `yocaso chat`: read a line, do what it says, show the answer as it comes."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.cli.chat.client import ChatClient
from services.cli.chat.transcript import Transcript
from services.cli.edge import CallError, Running
from services.cli.stack.errors import StackError
from services.cli.tokens import issue_token

_HISTORY: Final = 20
_HELP: Final = """\
/new               begin another conversation
/list              list your conversations
/open ID           go on with one of them
/cancel            cancel the running turn (Ctrl-C does so while an answer comes)
/quit              leave (as does Ctrl-D)
Anything else is a message."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What the command line said."""

    state: Path
    conversation: str | None
    url: str | None
    token: str | None
    user: str
    model: str | None


def run_chat(options: ChatOptions) -> int:
    """Chat until the user leaves."""
    try:
        running = None if options.url and options.token else Running.load(options.state)
        token = options.token or issue_token(
            options.state, options.user, f"{options.user}@example.com", running=running
        )
        url = options.url or (running.edge_url if running else "")
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_chat(options, url, token))
    except (CallError, StackError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _chat(options: ChatOptions, url: str, token: str) -> None:
    async with ChatClient(url, token) as client:
        chat = Chat(client, options.model, _write)
        await chat.open(options.conversation)
        _write("/help lists what can be typed.\n")
        async for line in _lines():
            if not await chat.obey(line):
                return


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


async def _lines() -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    while True:
        try:
            line = await loop.run_in_executor(None, input, "\nyou> ")
        except EOFError:
            return
        if line.strip():
            yield line.strip()


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
        """Ask, and show the answer as it comes; Ctrl-C cancels it."""
        turn = self._turn = Transcript()
        body: dict[str, Any] = {"conversationId": self._conversation, "text": text}
        if self._model:
            body["model"] = self._model
        self._write("\n")
        with _on_interrupt(self.cancel):
            async for event in self._client.ask(
                body, position=lambda: turn.last_seq, is_over=lambda: turn.is_over
            ):
                shown = turn.take(event)
                if shown.restarted:
                    self._write("\n[the answer begins again]\n")
                self._write(shown.text)
        self._write(
            {"run.failed": f"\n[{turn.error}]", "run.cancelled": "\n[cancelled]"}.get(
                turn.outcome, ""
            )
        )
        self._write("\n")
        self._turn = None

    async def cancel(self) -> None:
        """Cancel the running turn, from here or from another terminal."""
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


@contextlib.contextmanager
def _on_interrupt(action: Callable[[], Awaitable[None]]) -> Any:
    """While inside, Ctrl-C starts the action instead of ending the program."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def act() -> None:
        with contextlib.suppress(CallError):  # the turn may have ended meanwhile
            await action()

    def start() -> None:
        task = loop.create_task(act())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGINT, start)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
