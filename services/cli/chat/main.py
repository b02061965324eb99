"""Terminal loop of `yocaso chat`: reads lines, also during an answer; Ctrl-C cancels the answer."""

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
from services.cli.edge import CallError, StackEndpoints
from services.cli.stack.errors import StackError
from services.cli.tokens import issue_token


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Command-line options of `chat`."""

    state: Path
    conversation: str | None
    url: str | None
    token: str | None
    user: str
    model: str | None


def run_chat(options: ChatOptions) -> int:
    """Chat until /quit; the exit status."""
    try:
        endpoints = None if options.url and options.token else StackEndpoints.load(options.state)
        token = options.token or issue_token(
            options.state, options.user, f"{options.user}@example.com", endpoints=endpoints
        )
        url = options.url or (endpoints.edge_url if endpoints else "")
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
        _write("/help lists the commands.\n")
        await execute_lines(chat, _typed_lines(), _write)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _typed_lines() -> asyncio.Queue[str | None]:
    """Lines of standard input, then None at its end."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed after /quit
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)

    # A daemon thread: a blocking read of stdin cannot be interrupted at exit.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    return lines


async def execute_lines(
    chat: Chat, lines: asyncio.Queue[str | None], write: Callable[[str], None]
) -> None:
    """Execute lines until /quit or the end. During an answer, /cancel runs at once; other lines are queued."""
    queued: deque[str | None] = deque()
    while True:
        if not queued:
            write("\nyou> ")
        line = queued.popleft() if queued else await lines.get()
        if line is None:
            return
        if line.strip() and not await _execute(chat, line.strip(), lines, queued):
            return


async def _execute(
    chat: Chat, line: str, lines: asyncio.Queue[str | None], queued: deque[str | None]
) -> bool:
    execution = asyncio.create_task(chat.execute(line))
    with _on_interrupt(chat.try_cancel):
        while not execution.done():
            typing = asyncio.create_task(lines.get())
            await asyncio.wait({execution, typing}, return_when=asyncio.FIRST_COMPLETED)
            if not typing.done():
                typing.cancel()
                break
            typed = typing.result()
            if typed is not None and typed.strip() == "/cancel":
                await chat.try_cancel()
            else:
                queued.append(typed)
        return await execution


@contextlib.contextmanager
def _on_interrupt(action: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Within the context, Ctrl-C starts the action instead of ending the program."""
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
            task.cancel()  # the answer has ended, so the cancel call's response is not needed
