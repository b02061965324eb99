"""Runs the migrations of all schemas in a child process, while programs are built."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from services.cli.stack.state import StateFolder, write_private
from services.cli.stack.supervisor import launch_command, launch_spec

REPOSITORY: Final = Path(__file__).parents[3]
_NAME: Final = "migrations"
"""Name of the child's log and pid file."""


class Migrations:
    """The child process. If it fails, apps migrate at their start, as they do without it."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._child: subprocess.Popen[bytes] | None = None

    def begin(self, database_url: str) -> None:
        """Start the child."""
        launch = self._state.run / f"{_NAME}.json"
        argv = (sys.executable, "-m", "services.cli.migrate")
        env = {"YOCASO_DATABASE_URL": database_url}
        write_private(launch, launch_spec(argv, REPOSITORY, env))
        with (self._state.logs / f"{_NAME}.log").open("ab") as log:
            command = launch_command(launch, self._state.pid_file(_NAME))
            self._child = subprocess.Popen(command, stdout=log, stderr=log)

    def close(self) -> None:
        """Kill the child if it still runs."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
