"""The console on a terminal: while the stack starts, one line per process that changes in place."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from services.cli.console import NAME_WIDTH, Console
from services.cli.stack.builds import BuildStatus
from services.cli.stack.listener import State

_REFRESHES: Final = 8
"""Per second."""
_BAR_WIDTH: Final = 40
_STYLES: Final = {
    State.READY: "green",
    State.STARTING: "yellow",
    State.BUILDING: "dim",
    State.RESTARTING: "yellow",
    State.ENDED: "red",
    State.FAILED: "bold red",
}


@dataclass(slots=True)
class _Row:
    state: State
    text: str
    since: float = field(default_factory=time.monotonic)

    def shown(self) -> Text:
        open_states = (State.STARTING, State.RESTARTING)
        running = f" {time.monotonic() - self.since:.0f} s" if self.state in open_states else ""
        return Text(self.text + running, _STYLES[self.state])


class TerminalConsole(Console):
    """Shows the states of processes in place until the stack has started; log lines scroll above them."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__(colours=colours)
        self._rich = RichConsole(no_color=not colours, highlight=False)
        self._rows: dict[str, _Row] = {}
        self._status: BuildStatus | None = None
        self._live: Live | None = None
        self._settled = False
        self._shown = threading.RLock()
        """Guards what is shown; never held while printing, since the display's own thread takes it."""

    @override
    def process(self, name: str, state: State, seconds: float = 0.0, note: str = "") -> None:
        if self._settled:
            super().process(name, state, seconds, note)
            return
        row = _Row(state, self.describe(name, state, seconds, note))
        with self._shown:
            self._rows[name] = row
        self._display()

    @override
    def building(self, status: BuildStatus | None) -> None:
        with self._shown:
            self._status = status
        if status is not None and not self._settled:
            self._display()

    @override
    def settle(self) -> None:
        with self._shown:
            live, self._live = self._live, None
            self._settled = True
            self._status = None
        if live is not None:
            live.stop()

    @override
    def summary(self, title: str, rows: Mapping[str, str], steps: str) -> None:
        table = Table(title=title, show_header=False)
        table.add_column()
        table.add_column(overflow="fold")
        for row in rows.items():
            table.add_row(*row)
        self._rich.print(table, soft_wrap=True)
        self.show(steps)

    @override
    def show(self, text: str) -> None:
        live = self._live
        if live is None:
            super().show(text)
        else:
            live.console.print(Text.from_ansi(text.removesuffix("\n")), soft_wrap=True)

    def _display(self) -> None:
        with self._shown:
            if self._live is not None or self._settled:
                return
            live = self._live = Live(
                get_renderable=self._renderable,
                console=self._rich,
                refresh_per_second=_REFRESHES,
                redirect_stdout=False,
                redirect_stderr=False,
            )
        live.start()

    def _renderable(self) -> RenderableType:
        with self._shown:
            table = Table.grid(padding=(0, 2))
            table.add_column(width=NAME_WIDTH)
            table.add_column()
            for name, row in self._rows.items():
                table.add_row(name, row.shown())
            return Group(*self._bar(), table)

    def _bar(self) -> list[RenderableType]:
        if self._status is None:
            return []
        bar = ProgressBar(total=1.0, completed=self._status.fraction, width=_BAR_WIDTH)
        current = Text(self._status.current, "dim", overflow="ellipsis", no_wrap=True)
        lines = Table.grid()
        for each in (bar, Text(self._status.summary), current):
            lines.add_row(each)
        return [lines]
