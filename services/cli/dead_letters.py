"""`yocaso dead-letters` lists, shows and redrives the events that subscriptions gave up."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from services.cli.edge import CallError, StackEndpoints
from services.cli.stack.errors import StackError
from services.contracts.apps import APPS
from services.kit.dead_letters import GET, LIST, MAX_PAGE, REDRIVE, dead_letters_of

SUBSCRIBERS: Final = tuple(app.id for app in APPS if app.subscribes)


class DeadLetterClient:
    """Calls the apps that subscribe, each through its own sidecar."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._endpoints = StackEndpoints.load(state_dir)

    def call(self, app_id: str, method: str, **body: Any) -> dict[str, Any]:
        """Call a method of one app; raises as `post`."""
        return self._endpoints.call_own(self._state_dir, dead_letters_of(app_id)[method], body)

    def all(self, app_id: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each dead letter with its app, oldest first per app."""
        for each in [app_id] if app_id else SUBSCRIBERS:
            cursor: dict[str, str] = {}
            while True:
                page = self.call(each, LIST, limit=MAX_PAGE, **cursor)
                yield from ((each, letter) for letter in page["deadLetters"])
                if "nextCursor" not in page:
                    break
                cursor = {"cursor": page["nextCursor"]}

    def owner_of(self, letter_id: str) -> str:
        """The app of a dead letter.

        Raises:
            CallError: no app has it.
        """
        for app_id in SUBSCRIBERS:
            try:
                self.call(app_id, GET, deadLetterId=letter_id)
            except CallError as error:
                if error.code != "NOT_FOUND":
                    raise
            else:
                return app_id
        raise CallError(0, f"no app has the dead letter {letter_id}: `yocaso dead-letters list`")


def list_letters(state_dir: Path, app_id: str | None, *, as_json: bool) -> int:
    """Print the dead letters and what to do next; the exit status."""
    if app_id is not None and app_id not in SUBSCRIBERS:
        sys.stderr.write(f"{app_id} subscribes to no topic; choose of {', '.join(SUBSCRIBERS)}\n")
        return 2
    try:
        found = list(DeadLetterClient(state_dir).all(app_id))
    except (CallError, StackError) as error:
        return _fail(error)
    for app, letter in found:
        sys.stdout.write(json.dumps({"app": app, **letter}) if as_json else _line(app, letter))
        sys.stdout.write("\n")
    if not as_json:
        hint = (
            "show one: yocaso dead-letters show ID; handle it again: yocaso dead-letters redrive ID"
        )
        sys.stdout.write(f"{hint}\n" if found else "no dead letters\n")
    return 0


def show_letter(state_dir: Path, letter_id: str) -> int:
    """Print a dead letter with its event as JSON; the exit status."""
    try:
        client = DeadLetterClient(state_dir)
        app_id = client.owner_of(letter_id)
        found = client.call(app_id, GET, deadLetterId=letter_id)
    except (CallError, StackError) as error:
        return _fail(error)
    shown = {"app": app_id, **found["deadLetter"], "event": json.loads(found["event"])}
    sys.stdout.write(json.dumps(shown, indent=2, ensure_ascii=False) + "\n")
    return 0


def redrive_letters(state_dir: Path, letter_id: str | None, app_id: str | None) -> int:
    """Handle one dead letter again, or with `app_id` all of an app; prints each outcome; the exit status."""
    try:
        client = DeadLetterClient(state_dir)
        if letter_id is not None:
            letters = [(client.owner_of(letter_id), letter_id)]
        else:
            letters = [(app, letter["deadLetterId"]) for app, letter in client.all(app_id)]
    except (CallError, StackError) as error:
        return _fail(error)
    failed = 0
    for app, each in letters:
        try:
            client.call(app, REDRIVE, deadLetterId=each)
        except CallError as error:
            failed += 1
            sys.stdout.write(f"{each}  failed  {error}\n")
        else:
            sys.stdout.write(f"{each}  handled\n")
    sys.stdout.write(f"{len(letters) - failed} handled, {failed} failed\n")
    return 1 if failed else 0


def _line(app: str, letter: dict[str, Any]) -> str:
    error = letter["error"]
    attempts = f"{letter['attempts']} attempt{'s' if letter['attempts'] > 1 else ''}"
    columns = (letter["deadLetterId"], letter["at"], app, letter["topic"], attempts)
    return "  ".join((*columns, f"{error['code']}: {error['message']}"))


def _fail(error: Exception) -> int:
    sys.stderr.write(f"{error}\n")
    return 1
