"""`yocaso dev APP` runs one app of a running stack in this terminal and restarts it when code changes."""

import sys
from pathlib import Path
from typing import Any, Final

from services.cli.stack import launcher
from services.cli.stack.errors import StackError
from services.cli.stack.state import StateFolder
from services.cli.stack.supervisor import Supervisor
from services.contracts.apps import APPS
from services.kit.manifest import Language

SOURCES: Final = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "workflows")]
GRACE_SECONDS: Final = 10
"""Seconds that the app may drain before SIGKILL."""


def run_dev(app_id: str, state: Path) -> int:
    """Replace the app's process until Ctrl-C, then let supervisord start it again; the exit status."""
    python_apps = [app.id for app in APPS if app.language is Language.PYTHON]
    if app_id not in python_apps:
        sys.stderr.write(f"{app_id} is not a Python app: choose one of {', '.join(python_apps)}\n")
        return 2
    folder = StateFolder(state)
    try:
        supervisor = Supervisor.attach(folder)
    except StackError as error:
        sys.stderr.write(f"{error}\nRun `yocaso up` first.\n")
        return 1
    from watchfiles import PythonFilter, run_process  # installed for development only

    launch = str(folder.run / f"{app_id}.json")
    supervisor.stop(app_id)
    sys.stdout.write(f"{app_id} runs in this terminal: saving a file restarts it, Ctrl-C ends it\n")
    sys.stdout.flush()
    try:
        run_process(
            *SOURCES,
            target=launcher.main,
            args=(launch, str(folder.pid_file(app_id))),
            watch_filter=PythonFilter(),
            callback=_announce,
            sigint_timeout=GRACE_SECONDS,
        )
    finally:
        supervisor.start(app_id)
        sys.stdout.write(f"supervisord runs {app_id} again\n")
    return 0


def _announce(changes: set[tuple[Any, str]]) -> None:
    names = sorted(Path(path).name for _, path in changes)
    sys.stdout.write(f"restarting: {', '.join(names)} changed\n")
    sys.stdout.flush()
