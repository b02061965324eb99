"""`yocaso up` and `yocaso infra`: start, prove that it works, stay, stop."""

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from services.cli.console import Console, LogFollower
from services.cli.edge import CONVERSATION, CallError, Running
from services.cli.probe import EMAIL, USER, probe_turn
from services.cli.stack.apps import read_template
from services.cli.stack.errors import StackError
from services.cli.stack.ports import LOOPBACK
from services.cli.stack.stack import Stack
from services.cli.tokens import issue_token

_PROBE_SECONDS: Final = 90.0
_WATCH_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    state: Path
    file: Path
    port_offset: int
    apps: bool
    edge_port: int | None = None
    quiet: bool = False
    secure: bool = False


class _Interrupted(BaseException):
    """Ctrl-C or SIGTERM came while starting."""


def run_stack(options: Options) -> int:
    """Run until a signal comes; the exit status says whether it ran well."""
    console = Console()
    stopping = threading.Event()
    _on_signals(stopping, during_start=True)
    stack = Stack(
        options.state,
        port_offset=options.port_offset,
        dapr_yaml=options.file,
        with_model=_needs_local_model(),
        edge_port=options.edge_port,
        secure=options.secure,
        progress=console.say,
    )
    try:
        _refuse_bad_settings()
        return _run(stack, options, console, stopping)
    except _Interrupted:
        return 0
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(stack: Stack, options: Options, console: Console, stopping: threading.Event) -> int:
    began = time.monotonic()
    follower = LogFollower(console, {}, stack.supervisor.log)
    try:
        stack.prepare(apps=options.apps)
        shown = (
            {}
            if options.quiet
            else {n: stack.log(n) for n in stack.names if stack.spec(n).on_console}
        )
        follower = LogFollower(console, shown, stack.supervisor.log)
        follower.begin()
        console.say(f"starting {', '.join(stack.names)}")
        stack.launch()
        if not options.apps:
            stack.link_programs()
        started = time.monotonic()
        running = _running(stack, options)
        running.save(stack.state)
        if options.apps:
            probe_turn(running.edge_url, lambda: _probe_token(stack, running), _PROBE_SECONDS)
        took = f"{time.monotonic() - began:.1f} s (processes {started - began:.1f} s)"
        _welcome(stack, options, running, took)
        _on_signals(stopping, during_start=False)
        return _watch(stack, stopping, console)
    finally:
        _on_signals(stopping, during_start=False)
        asked = time.monotonic()
        stack.stop()
        follower.close()
        console.say(f"everything is stopped ({time.monotonic() - asked:.1f} s)")


def _watch(stack: Stack, stopping: threading.Event, console: Console) -> int:
    while not stopping.wait(_WATCH_SECONDS):
        if not stack.supervisor.is_alive():
            console.say(f"the supervisor ended; see {stack.supervisor.log}")
            return 1
    console.say("stopping")
    return 0


def _on_signals(stopping: threading.Event, *, during_start: bool) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        already = stopping.is_set()
        stopping.set()
        if during_start and not already:
            raise _Interrupted

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


def _needs_local_model() -> bool:
    return not os.environ.get("OPENROUTER_API_KEY") and not os.environ.get("LLM_BASE_URL")


def _refuse_bad_settings() -> None:
    base_url = os.environ.get("LLM_BASE_URL", "")
    if base_url and not base_url.startswith(("http://", "https://")):
        raise StackError(f"LLM_BASE_URL must begin with http:// or https://, not {base_url!r}")


def _probe_token(stack: Stack, running: Running) -> str:
    try:
        return issue_token(stack.state.path, USER, EMAIL, running=running)
    except KeyError as error:
        raise CallError(0, f"auth answered without {error}") from None


def _running(stack: Stack, options: Options) -> Running:
    if options.apps:
        return Running(stack.url("edge"), stack.url("auth-daprd"), "authApiToken")
    apps = {app.app_id: app for app in read_template(options.file.absolute()).apps}
    edge, auth = apps.get("edge"), apps.get("auth")
    return Running(
        f"http://{LOOPBACK}:{stack.ports.shifted(edge.app_port) if edge else 0}",
        f"http://{LOOPBACK}:{stack.ports.shifted(auth.dapr_http_port) if auth else 0}",
        "commonApiToken",
    )


def _welcome(stack: Stack, options: Options, running: Running, took: str) -> None:
    from rich.console import Console as RichConsole
    from rich.table import Table

    table = Table(
        title=f"Yocaso is ready in {took}" if options.apps else f"The servers are ready in {took}"
    )
    table.add_column("what")
    table.add_column("where", overflow="fold")
    if options.apps:
        table.add_row("edge", running.edge_url)
        table.add_row("API documentation", f"{running.edge_url}/docs")
    for name in stack.names:
        if name in ("postgres", "valkey", "model"):
            table.add_row(name, stack.url(name).split("@")[-1])
        elif name in stack.apps and name != "edge":
            table.add_row(
                f"app {name}", f"{stack.url(name)} (sidecar {stack.url(name + '-daprd')})"
            )
    table.add_row("logs", str(stack.state.logs))
    RichConsole(soft_wrap=True).print(table)
    sys.stdout.write(_first_words(stack, options, running))
    sys.stdout.flush()


def _first_words(stack: Stack, options: Options, running: Running) -> str:
    state = "" if options.state == Path(".yocaso") else f" --state {options.state}"
    if not options.apps:
        return f"\nNow, in another shell:\n  . {stack.state.env_file}\n  dapr run -f {options.file}\n\n"
    token = issue_token(stack.state.path, "me", "me@example.com", running=running)
    base = f"{running.edge_url}{CONVERSATION}"
    sent = """-H "authorization: Bearer $TOKEN" -H 'content-type: application/json'"""
    return (
        f"\nA first conversation (the token is valid for a day):\n\n  TOKEN={token}\n"
        f"  ID=$(curl -s {base}/create-conversation {sent} -d '{{}}' | grep -o 'conv_[0-9a-z]*')\n"
        f"  curl -sN {base}/stream-message {sent} -H 'accept: text/event-stream' "
        """-d '{"conversationId":"'$ID'","text":"Hello!"}'\n\n"""
        f"Or talk to it: yocaso chat{state}\nStop by Ctrl-C.\n\n"
    )
