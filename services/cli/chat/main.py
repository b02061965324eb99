"""The terminal of `yocaso chat`: lines in, also while an answer comes; Ctrl-C cancels the answer."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.cli.chat.client import ChatClient
from services.cli.chat.conversation import Chat
from services.cli.edge import CallError, Running
from services.cli.stack.errors import StackError
from services.cli.tokens import issue_token


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
        await converse(chat, _typed_lines(), _write)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _typed_lines() -> asyncio.Queue[str | None]:
    """Lines of the standard input as they are typed, and None at its end."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the user has left
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)

    # A daemon, as nothing can interrupt it while it waits for a key.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    return lines


async def converse(
    chat: Chat, lines: asyncio.Queue[str | None], write: Callable[[str], None]
) -> None:
    """Obey line after line until /quit or the end. While an answer comes, /cancel acts at once; others wait."""
    later: deque[str | None] = deque()
    while True:
        if not later:
            write("\nyou> ")
        line = later.popleft() if later else await lines.get()
        if line is None:
            return
        if line.strip() and not await _obey(chat, line.strip(), lines, later):
            return


async def _obey(
    chat: Chat, line: str, lines: asyncio.Queue[str | None], later: deque[str | None]
) -> bool:
    obeying = asyncio.create_task(chat.obey(line))
    with _on_interrupt(chat.cancel_quietly):
        while not obeying.done():
            typing = asyncio.create_task(lines.get())
            await asyncio.wait({obeying, typing}, return_when=asyncio.FIRST_COMPLETED)
            if not typing.done():
                typing.cancel()
                break
            typed = typing.result()
            if typed is not None and typed.strip() == "/cancel":
                await chat.cancel_quietly()
            else:
                later.append(typed)
        return await obeying


@contextlib.contextmanager
def _on_interrupt(action: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """While inside, Ctrl-C starts the action instead of ending the program."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def start() -> None:
        task = loop.create_task(action())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGINT, start)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        for task in tasks:
            task.cancel()  # what was asked is done; only its receipt is still awaited
