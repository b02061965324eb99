"""The state folder: data, logs, secrets, and the record of which processes are ours."""

import contextlib
import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Final

from services.cli.stack.errors import StackError
from services.cli.stack.launcher import start_mark

_TOKEN_BYTES: Final = 32
_SUPERVISOR: Final = "supervisor"


class StateFolder:
    """`.yocaso/`: one stack at a time, held by a file lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.bin = self.path / "bin"
        self.data = self.path / "data"
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.secrets_file = self.path / "secrets.json"
        self.env_file = self.path / "env"
        self._lock_fd: int | None = None

    def create(self) -> None:
        """Make the folders; only this user may read what holds secrets."""
        for folder in (self.path, self.bin, self.data, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(mode=0o700, exist_ok=True)

    def lock(self) -> None:
        """Take the folder for this process, or say who has it."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip() or "unknown"
            os.close(descriptor)
            raise StackError(
                f"a stack already runs on {self.path} (process {holder}). "
                "Stop it first, or give another folder by --state or YOCASO_STATE."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = descriptor

    @property
    def is_locked(self) -> bool:
        """Whether this object holds the folder."""
        return self._lock_fd is not None

    def unlock(self) -> None:
        """Give the folder up."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def pid_file(self, name: str) -> Path:
        """Where a process of ours is recorded."""
        return self.run / f"{name}.pid"

    def recorded_pid(self, name: str) -> int | None:
        """The pid of a process of ours that lives; a reused pid is not ours."""
        return living_pid(self.pid_file(name))

    def leftovers(self) -> dict[str, int]:
        """Our processes that outlived the command that started them, the supervisor first."""
        names = sorted(
            (file.stem for file in self.run.glob("*.pid")), key=lambda name: name != _SUPERVISOR
        )
        found = {name: self.recorded_pid(name) for name in names}
        return {name: pid for name, pid in found.items() if pid is not None}

    def clear_records(self) -> None:
        """Forget processes that are gone."""
        for file in self.run.glob("*.pid"):
            file.unlink(missing_ok=True)

    def load_secrets(self) -> dict[str, str]:
        """The generated secrets; made once, kept over restarts, readable by this user only."""
        if self.secrets_file.exists():
            return json.loads(self.secrets_file.read_text())
        return {}

    def save_secrets(self, values: dict[str, str]) -> None:
        """Replace the secrets file, whole or not at all."""
        write_private(self.secrets_file, json.dumps(values, indent=2, sort_keys=True) + "\n")

    def secret(self, values: dict[str, str], name: str) -> str:
        """A secret by name, generated when it is new."""
        return values.setdefault(name, secrets.token_hex(_TOKEN_BYTES))


def living_pid(pid_file: Path) -> int | None:
    """The pid in a record if that very process still lives."""
    try:
        pid_text, _, mark = pid_file.read_text().strip().partition(" ")
        pid = int(pid_text)
    except (OSError, ValueError):
        return None
    return pid if mark and start_mark(pid) == mark and not is_zombie(pid) else None


def is_zombie(pid: int) -> bool:
    """Whether the process has ended and only waits for its parent to notice."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"


def is_same_file(path: Path, descriptor: int) -> bool:
    """Whether a path still names the open file; after a rotation it does not."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def send(pid: int, signal_number: int) -> None:
    """Signal a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read, whole or not at all."""
    staged = path.with_name(path.name + ".new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    staged.replace(path)
