"""`yocaso up` and `yocaso infra`: start the stack, probe it, run until a signal, stop it."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.cli.console import Console, open_console
from services.cli.edge import CallError, StackEndpoints
from services.cli.log_follower import LogFollower
from services.cli.probe import EMAIL, USER, ModelProbe, advice
from services.cli.signals import Interrupted, StopSignals
from services.cli.stack.dapr_run import next_step
from services.cli.stack.environment import COMMON, MODEL
from services.cli.stack.errors import StackError
from services.cli.stack.listener import State
from services.cli.stack.policies import trusted_apps
from services.cli.stack.ports import LOOPBACK
from services.cli.stack.stack import Stack
from services.cli.stack.template import read_template
from services.cli.summary import addresses, first_calls
from services.cli.tokens import ISSUER, issue_token
from services.contracts.apps import EDGE

FIRST_TURN: Final = "first turn"
"""The probe's line among the processes."""
_WATCH_SECONDS: Final = 0.25
_REPORT_SECONDS: Final = 1.0
"""Least time between two lines about the processes that still run."""
KILLED: Final = 130
"""Exit status after a second signal."""


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
    as_json: bool = False
    model_seconds: float = 0.0


def run_stack(options: Options) -> int:
    """Run the stack until a signal; the exit status."""
    console = open_console(as_json=options.as_json)
    signals = StopSignals()
    try:
        _check_settings()
        stack = Stack(
            options.state,
            port_offset=options.port_offset,
            dapr_yaml=options.file,
            with_model=_needs_local_model(),
            edge_port=options.edge_port,
            secure=options.secure,
            trusted_apps=trusted_apps(os.environ),
            listener=console,
        )
        return _Run(stack, options, console, signals).run()
    except Interrupted:
        return KILLED if signals.at_once.is_set() else 0
    except StackError as error:
        console.settle()
        sys.stderr.write(f"{error}\n")
        return 1


class _Run:
    """One run of the stack: start, probe, watch, stop."""

    def __init__(
        self, stack: Stack, options: Options, console: Console, signals: StopSignals
    ) -> None:
        self._stack = stack
        self._options = options
        self._console = console
        self._signals = signals
        self._follower = LogFollower(console, {}, stack.supervisor.log)
        self._probe: ModelProbe | None = None
        self._next_report = 0.0

    def run(self) -> int:
        try:
            self._start()
            self._signals.started()
            status = self._watch()
        finally:
            self._signals.started()
            self._stop()
            self._signals.ignore()
        return KILLED if self._signals.at_once.is_set() else status

    def _start(self) -> None:
        began, stack = time.monotonic(), self._stack
        stack.prepare(apps=self._options.apps, link=not self._options.apps)
        on_console = [name for name in stack.names if stack.spec(name).on_console]
        logs = {} if self._options.quiet else {name: stack.log(name) for name in on_console}
        self._follower = LogFollower(self._console, logs, stack.supervisor.log)
        self._follower.begin()
        self._console.report(f"starting {', '.join(stack.names)}")
        stack.launch()
        processes = time.monotonic() - began
        endpoints = _endpoints(stack, self._options)
        endpoints.save(stack.state)
        if self._options.apps:
            self._start_probe(endpoints, began, processes)
        else:
            stack.link_programs()
            self._console.settle()
            steps = next_step(stack.state, stack.ports, self._options.file.absolute())
            title = f"The servers are ready in {processes:.1f} s"
            self._console.summary(title, addresses(stack, None), f"\n{steps}\n")

    def _start_probe(self, endpoints: StackEndpoints, began: float, processes: float) -> None:
        stack, console = self._stack, self._console
        probe = ModelProbe(endpoints.edge_url, lambda: _probe_token(stack, endpoints))
        self._probe = probe
        console.process(FIRST_TURN, State.STARTING)
        probe.await_platform()
        sent = time.monotonic()
        is_answered = probe.await_model(self._options.model_seconds)
        state = State.READY if is_answered else State.FAILED
        console.process(FIRST_TURN, state, time.monotonic() - sent, probe.failure)
        console.settle()
        took = f"{time.monotonic() - began:.1f} s (processes {processes:.1f} s)"
        title = f"Yocaso is {'ready' if is_answered else 'up without a model'} in {took}"
        steps = first_calls(stack, endpoints, self._options.state)
        console.summary(title, addresses(stack, endpoints), steps)
        if not is_answered:
            self._explain(probe)

    def _explain(self, probe: ModelProbe) -> None:
        console = self._console
        console.report(f"the model does not answer: {probe.failure}")
        console.report(advice(os.environ, self._stack.log(MODEL)))
        console.report(f"If the model works, look for errors in {self._stack.state.logs}.")
        console.report("the platform stays up, and turns work once the model answers")
        probe.follow(lambda seconds: console.report(f"the model answers, after {seconds:.0f} s"))

    def _watch(self) -> int:
        starting: dict[str, float] = {}
        while not self._signals.stopping.wait(_WATCH_SECONDS):
            if not self._stack.supervisor.is_alive():
                self._console.report(f"supervisord ended; see {self._stack.supervisor.log}")
                return 1
            now = time.monotonic()
            starting |= dict.fromkeys(self._follower.take_restarted(), now)
            for name in [name for name in starting if self._is_ready(name)]:
                self._console.process(name, State.READY, now - starting.pop(name))
        return 0

    def _is_ready(self, name: str) -> bool:
        try:
            return self._stack.is_ready(name)
        except StackError:  # supervisord is busy or ending
            return False

    def _stop(self) -> None:
        began = time.monotonic()
        self._console.settle()
        if self._probe is not None:
            self._probe.close()
        self._follower.ignore_exits()
        has_begun = self._stack.state.is_locked
        self._stack.stop(self._report_waiting, self._signals.at_once.is_set)
        self._follower.close()
        if not has_begun:
            return
        how = "killed" if self._signals.at_once.is_set() else "stopped"
        self._console.report(f"{how} all processes in {time.monotonic() - began:.1f} s")

    def _report_waiting(self, names: Sequence[str]) -> None:
        if time.monotonic() < self._next_report:
            return
        self._next_report = time.monotonic() + _REPORT_SECONDS
        again = "; Ctrl-C again kills them" if not self._signals.at_once.is_set() else ""
        self._console.report(f"stopping; waiting for {', '.join(names)}{again}")


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
    apps = read_template(options.file.absolute()).apps
    if options.apps:
        sidecars = {app.app_id: stack.url(f"{app.app_id}-daprd") for app in apps}
        return StackEndpoints(stack.url(EDGE.id), sidecars)
    ports = stack.ports
    sidecars = {
        app.app_id: f"http://{LOOPBACK}:{ports.shifted(app.dapr_http_port)}" for app in apps
    }
    edge = next((ports.shifted(app.app_port) for app in apps if app.app_id == EDGE.id), 0)
    return StackEndpoints(f"http://{LOOPBACK}:{edge}", sidecars, COMMON)
