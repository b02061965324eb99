"""The state folder: data, logs, secrets and pid files."""

import contextlib
import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Final

from services.cli.stack.errors import StackError
from services.cli.stack.launcher import start_time

SUPERVISOR: Final = "supervisor"
"""Name of supervisord's pid file and log."""
_SECRET_BYTES: Final = 32


class StateFolder:
    """`.yocaso/`: used by one stack at a time, under a file lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.bin = self.path / "bin"
        self.data = self.path / "data"
        self.names = self.data / "names.db"
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.secrets_file = self.path / "secrets.json"
        self.env_file = self.path / "env"
        self._lock_fd: int | None = None

    def create(self) -> None:
        """Create the folders; only this user can read `run`, which holds secrets."""
        for folder in (self.path, self.bin, self.data, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(mode=0o700, exist_ok=True)

    def lock(self) -> None:
        """Lock the folder.

        Raises:
            StackError: another process holds the lock.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip() or "unknown"
            os.close(descriptor)
            raise StackError(
                f"a stack already runs in {self.path} (process {holder}): "
                "stop it, or set another folder by --state or YOCASO_STATE"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = descriptor

    @property
    def is_locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock_fd is not None

    def unlock(self) -> None:
        """Release the lock, if held."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def pid_file(self, name: str) -> Path:
        return self.run / f"{name}.pid"

    def leftovers(self) -> dict[str, int]:
        """Running processes with a pid file: name to pid, the supervisor first."""
        files = sorted(self.run.glob("*.pid"), key=lambda file: file.stem != SUPERVISOR)
        found = {file.stem: _live_pid(file) for file in files}
        return {name: pid for name, pid in found.items() if pid is not None}

    def clear_pid_files(self) -> None:
        for file in self.run.glob("*.pid"):
            file.unlink(missing_ok=True)

    def load_secrets(self) -> dict[str, str]:
        """The generated secrets, kept over restarts."""
        if self.secrets_file.exists():
            return json.loads(self.secrets_file.read_text())
        return {}

    def save_secrets(self, values: dict[str, str]) -> None:
        """Replace the secrets file atomically."""
        write_private(self.secrets_file, json.dumps(values, indent=2, sort_keys=True) + "\n")

    def secret(self, values: dict[str, str], name: str) -> str:
        """The secret with this name in `values`, generated and added if absent."""
        return values.setdefault(name, secrets.token_hex(_SECRET_BYTES))


def _live_pid(pid_file: Path) -> int | None:
    """The pid in a pid file; None if the process ended or the pid was reused (other start time)."""
    try:
        pid_text, _, started = pid_file.read_text().strip().partition(" ")
        pid = int(pid_text)
    except (OSError, ValueError):
        return None
    return pid if started and start_time(pid) == started and not _is_zombie(pid) else None


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"


def is_same_file(path: Path, descriptor: int) -> bool:
    """Whether a path still refers to the open file; a log rotation replaces it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def send(pid: int, signal_number: int) -> None:
    """Signal a process; no error if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def write_private(path: Path, text: str) -> None:
    """Atomically write a file that only this user can read."""
    staged = path.with_name(path.name + ".new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    staged.replace(path)
