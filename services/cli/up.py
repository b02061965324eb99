"""`yocaso up` and `yocaso infra`: start the stack, probe it, run until a signal, stop it."""

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
from services.cli.edge import CallError, StackEndpoints
from services.cli.probe import EMAIL, USER, probe_turn
from services.cli.stack.apps import read_template
from services.cli.stack.environment import COMMON, MODEL, api_token_name
from services.cli.stack.errors import StackError
from services.cli.stack.ports import LOOPBACK
from services.cli.stack.stack import Stack
from services.cli.tokens import ISSUER, issue_token
from services.contracts.apps import EDGE
from services.contracts.llm.conversations import CREATE_CONVERSATION, STREAM_MESSAGE

_PROBE_SECONDS: Final = 90.0
_WATCH_SECONDS: Final = 1.0
_LISTED_SERVERS: Final = ("postgres", "valkey", MODEL)
"""Servers in the summary: those that developers open."""


@dataclass(frozen=True, slots=True)
class Options:
    """Command-line options of `up` and `infra`."""

    state: Path
    file: Path
    port_offset: int
    apps: bool
    edge_port: int | None = None
    quiet: bool = False
    secure: bool = False


class _Interrupted(BaseException):
    """A signal arrived during the start."""


def run_stack(options: Options) -> int:
    """Run the stack until a signal; the exit status."""
    console = Console()
    stopping = threading.Event()
    _handle_signals(stopping, starting=True)
    stack = Stack(
        options.state,
        port_offset=options.port_offset,
        dapr_yaml=options.file,
        with_model=_needs_local_model(),
        edge_port=options.edge_port,
        secure=options.secure,
        progress=console.report,
    )
    try:
        _check_settings()
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
        on_console = [name for name in stack.names if stack.spec(name).on_console]
        logs = {} if options.quiet else {name: stack.log(name) for name in on_console}
        follower = LogFollower(console, logs, stack.supervisor.log)
        follower.begin()
        console.report(f"starting {', '.join(stack.names)}")
        stack.launch()
        if not options.apps:
            stack.link_programs()
        started = time.monotonic()
        endpoints = _endpoints(stack, options)
        endpoints.save(stack.state)
        if options.apps:
            probe_turn(endpoints.edge_url, lambda: _probe_token(stack, endpoints), _PROBE_SECONDS)
        took = f"{time.monotonic() - began:.1f} s (processes {started - began:.1f} s)"
        _print_summary(stack, options, endpoints, took)
        _handle_signals(stopping, starting=False)
        return _watch(stack, stopping, console)
    finally:
        _handle_signals(stopping, starting=False)
        stop_began = time.monotonic()
        stack.stop()
        follower.close()
        console.report(f"stopped all processes in {time.monotonic() - stop_began:.1f} s")


def _watch(stack: Stack, stopping: threading.Event, console: Console) -> int:
    while not stopping.wait(_WATCH_SECONDS):
        if not stack.supervisor.is_alive():
            console.report(f"supervisord ended; see {stack.supervisor.log}")
            return 1
    console.report("stopping")
    return 0


def _handle_signals(stopping: threading.Event, *, starting: bool) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        first = not stopping.is_set()
        stopping.set()
        if starting and first:
            raise _Interrupted

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


def _needs_local_model() -> bool:
    return not os.environ.get("OPENROUTER_API_KEY") and not os.environ.get("LLM_BASE_URL")


def _check_settings() -> None:
    base_url = os.environ.get("LLM_BASE_URL", "")
    if base_url and not base_url.startswith(("http://", "https://")):
        raise StackError(f"LLM_BASE_URL must begin with http:// or https://, not {base_url!r}")


def _probe_token(stack: Stack, endpoints: StackEndpoints) -> str:
    try:
        return issue_token(stack.state.path, USER, EMAIL, endpoints=endpoints)
    except KeyError as error:
        raise CallError(0, f"the response of {ISSUER} has no field {error}") from None


def _endpoints(stack: Stack, options: Options) -> StackEndpoints:
    if options.apps:
        return StackEndpoints(
            stack.url(EDGE.id), stack.url(f"{ISSUER}-daprd"), api_token_name(ISSUER)
        )
    apps = {app.app_id: app for app in read_template(options.file.absolute()).apps}
    edge, auth = apps.get(EDGE.id), apps.get(ISSUER)
    return StackEndpoints(
        f"http://{LOOPBACK}:{stack.ports.shifted(edge.app_port) if edge else 0}",
        f"http://{LOOPBACK}:{stack.ports.shifted(auth.dapr_http_port) if auth else 0}",
        api_token_name(COMMON),
    )


def _print_summary(stack: Stack, options: Options, endpoints: StackEndpoints, took: str) -> None:
    from rich.console import Console as RichConsole
    from rich.table import Table

    table = Table(
        title=f"Yocaso is ready in {took}" if options.apps else f"The servers are ready in {took}"
    )
    table.add_column("process")
    table.add_column("address", overflow="fold")
    if options.apps:
        table.add_row(EDGE.id, endpoints.edge_url)
        table.add_row("API documentation", f"{endpoints.edge_url}/docs")
    for name in stack.names:
        if name in _LISTED_SERVERS:
            table.add_row(name, stack.url(name).split("@")[-1])
        elif name in stack.apps and name != EDGE.id:
            table.add_row(
                f"app {name}", f"{stack.url(name)} (sidecar {stack.url(name + '-daprd')})"
            )
    table.add_row("logs", str(stack.state.logs))
    RichConsole(soft_wrap=True).print(table)
    sys.stdout.write(_next_steps(stack, options, endpoints))
    sys.stdout.flush()


def _next_steps(stack: Stack, options: Options, endpoints: StackEndpoints) -> str:
    state = "" if options.state == Path(".yocaso") else f" --state {options.state}"
    if not options.apps:
        return f"\nNext, in another shell:\n  . {stack.state.env_file}\n  dapr run -f {options.file}\n\n"
    token = issue_token(stack.state.path, "me", "me@example.com", endpoints=endpoints)
    create, stream = (
        endpoints.edge_url + each.edge_path for each in (CREATE_CONVERSATION, STREAM_MESSAGE)
    )
    headers = """-H "authorization: Bearer $TOKEN" -H 'content-type: application/json'"""
    return (
        f"\nStart a conversation (the token is valid for one day):\n\n  TOKEN={token}\n"
        f"  ID=$(curl -s {create} {headers} -d '{{}}' | grep -o 'conv_[0-9a-z]*')\n"
        f"  curl -sN {stream} {headers} -H 'accept: text/event-stream' "
        """-d '{"conversationId":"'$ID'","text":"Hello!"}'\n\n"""
        f"Or chat in the terminal: yocaso chat{state}\nStop with Ctrl-C.\n\n"
    )
