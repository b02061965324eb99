"""Runs supervisord with a generated configuration and controls it by XML-RPC over a Unix socket.

Supervisor has restart with backoff, ordered stop with a timeout, and log rotation, and no dependencies. Circus needs
ZeroMQ and Tornado; honcho never restarts a process.
"""

import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from typing_extensions import override

from services.cli.stack.errors import StackError
from services.cli.stack.process import STOP_SECONDS, ProcessSpec, Stage
from services.cli.stack.state import SUPERVISOR, StateFolder, write_private
from services.cli.stack.waiting import wait_until

_LAUNCHER: Final = Path(__file__).with_name("launcher.py")
_PYTHON_FLAGS: Final = ("-I", "-S") if sys.platform == "linux" else ("-I",)
"""Skips site-packages for a faster start; elsewhere than on Linux the launcher needs psutil."""
_MAX_SOCKET_PATH: Final = 100
"""Bytes; the kernel allows 104 to 108."""
_LOG_BYTES: Final = 10 * 1024 * 1024
_STOP_POLL_SECONDS: Final = 0.05
_STOP_GRACE_SECONDS: Final = 10.0
"""Beyond the seconds after which supervisord kills a program."""
_STOPPING: Final = "STOPPING"
_ALREADY_STARTED, _NOT_RUNNING, _ALREADY_ADDED = 60, 70, 90


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    @override
    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        self._connection = host, connection  # for `close`
        return connection


class Supervisor:
    """One supervisord and its programs."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._config = state.run / "supervisor.conf"
        self.socket = _socket_path(state.run)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._groups: dict[str, str] = {}

    @classmethod
    def attach(cls, state: StateFolder) -> Self:
        """Connect to the supervisord that another command started.

        Raises:
            StackError: supervisord does not answer.
        """
        found = cls(state)
        programs: list[dict[str, Any]] = found._call("getAllProcessInfo")
        found._groups = {each["name"]: each["group"] for each in programs}
        return found

    @property
    def log(self) -> Path:
        """The log of starts, exits and restarts."""
        return self._state.logs / f"{SUPERVISOR}.log"

    def begin(self, specs: Iterable[ProcessSpec], unsupervised: frozenset[str]) -> None:
        """Start supervisord with all programs stopped. It stops everything when the calling thread ends."""
        self._write(list(specs), unsupervised)
        launch = self._state.run / f"{SUPERVISOR}.json"
        argv = (sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(self._config))
        write_private(launch, launch_spec(argv, Path("/")))
        self._daemon = subprocess.Popen(
            launch_command(launch, self._state.pid_file(SUPERVISOR)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal signals only the command
        )
        wait_until(self._is_answering, 15, "supervisord to answer", self._require_daemon)

    def write_spec(self, spec: ProcessSpec) -> None:
        """Set the specification for the next start of a program."""
        launch = launch_spec(spec.argv, spec.cwd, spec.env, spec.user, spec.death_signal)
        write_private(self._state.run / f"{spec.name}.json", launch)

    def add(self, spec: ProcessSpec, *, supervised: bool) -> None:
        """Add a program to the running supervisord, in its own group."""
        self.write_spec(spec)
        with self._config.open("a") as file:
            file.write(_program(self._state, spec, supervised))
            file.write(_group(spec.name + "-group", [spec.name], spec.stage))
        self._groups[spec.name] = spec.name + "-group"
        self._call("reloadConfig")
        self._call("addProcessGroup", self._groups[spec.name], ignore=_ALREADY_ADDED)

    def start(self, *names: str) -> None:
        """Start programs without waiting for them; no effect on those that run."""
        for name in names:
            self._call("startProcess", self._qualified(name), False, ignore=_ALREADY_STARTED)

    def stop(self, *names: str) -> None:
        """Stop programs at once, return when all have ended, and keep them stopped."""
        self.begin_stop(*names)
        wait_until(
            lambda: all(self.state(name) != _STOPPING for name in names),
            max(STOP_SECONDS.values()) + _STOP_GRACE_SECONDS,
            f"{', '.join(names)} to stop",
            interval=_STOP_POLL_SECONDS,
        )

    def begin_stop(self, *names: str) -> None:
        """Send programs their stop signal without waiting, and keep them stopped."""
        for name in names:
            self._call("stopProcess", self._qualified(name), False, ignore=_NOT_RUNNING)

    def pid(self, name: str) -> int | None:
        """The pid of a program, if it runs."""
        info = self._call("getProcessInfo", self._qualified(name))
        return int(info["pid"]) or None

    def state(self, name: str) -> str:
        """Supervisor's state of a program, such as `RUNNING`, `BACKOFF` or `EXITED`."""
        return str(self._call("getProcessInfo", self._qualified(name))["statename"])

    def is_alive(self) -> bool:
        """Whether supervisord runs."""
        return self._daemon is not None and self._daemon.poll() is None

    def shut_down(
        self,
        seconds: float,
        waiting: Callable[[Sequence[str]], None] | None = None,
        at_once: Callable[[], bool] | None = None,
    ) -> None:
        """Stop all programs stage by stage, then supervisord; kill it after the timeout, or when `at_once` is true."""
        if self._daemon is None:
            return
        deadline = time.monotonic() + seconds
        shown: set[str] = set()
        if self._daemon.poll() is None:
            self._daemon.terminate()
        while self._daemon.poll() is None:
            if (at_once and at_once()) or time.monotonic() > deadline:
                self._daemon.kill()
                self._daemon.wait()
                break
            running = set(self._state.leftovers()) - {SUPERVISOR}
            if waiting and running and running != shown:
                shown = running
                waiting(sorted(running))
            time.sleep(_STOP_POLL_SECONDS)
        self.socket.unlink(missing_ok=True)
        self._daemon = None

    def _is_answering(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException), self._proxy() as proxy:
            return bool(proxy.supervisor.getState())
        return False

    def _require_daemon(self) -> None:
        if not self.is_alive():
            raise StackError(f"supervisord ended during its start; see {self.log}")

    def _qualified(self, name: str) -> str:
        try:
            return f"{self._groups[name]}:{name}"
        except KeyError:
            raise StackError(
                f"no process {name}: choose of {', '.join(sorted(self._groups))}"
            ) from None

    def _proxy(self) -> Any:
        return xmlrpc.client.ServerProxy(
            "http://localhost", transport=_UnixTransport(str(self.socket))
        )

    def _call(self, method: str, *arguments: Any, ignore: int = 0) -> Any:
        try:
            with self._proxy() as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == ignore:
                return None
            raise StackError(
                f"supervisord refused {method}{arguments}: {fault.faultString}; see {self.log}"
            ) from None
        except OSError as error:
            raise StackError(f"supervisord does not answer ({error}); see {self.log}") from error

    def _write(self, specs: list[ProcessSpec], unsupervised: frozenset[str]) -> None:
        parts = [_daemon_section(self)]
        for spec in specs:
            self.write_spec(spec)
            parts.append(_program(self._state, spec, spec.name not in unsupervised))
        for stage in Stage:
            names = [spec.name for spec in specs if spec.stage is stage]
            if names:
                parts.append(_group(stage.name.lower(), names, stage))
                self._groups.update(dict.fromkeys(names, stage.name.lower()))
        write_private(self._config, "\n".join(parts))


def _socket_path(folder: Path) -> Path:
    path = folder / "supervisor.sock"
    if len(str(path)) <= _MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"yocaso-{os.getuid()}-{digest}.sock"


def launch_spec(
    argv: tuple[str, ...],
    cwd: Path,
    env: Mapping[str, str] | None = None,
    user: tuple[int, int] | None = None,
    death_signal: str = "TERM",
) -> str:
    """The specification of a process for the launcher."""
    values = {"argv": argv, "cwd": str(cwd), "env": dict(env or {}), "user": user}
    return json.dumps({**values, "death_signal": death_signal})


def launch_command(launch: Path, pid_file: Path) -> list[str]:
    """The command that starts a process through the launcher."""
    return [sys.executable, *_PYTHON_FLAGS, str(_LAUNCHER), str(launch), str(pid_file)]


def _escaped(path: Path | str) -> str:
    return str(path).replace("%", "%%")


def _daemon_section(supervisor: Supervisor) -> str:
    user = "user=root\n" if os.geteuid() == 0 else ""
    log = supervisor.log
    return f"""[supervisord]
nodaemon=true
{user}logfile={_escaped(log)}
logfile_maxbytes={_LOG_BYTES}
logfile_backups=1
pidfile={_escaped(supervisor.socket.with_suffix(".own.pid"))}
childlogdir={_escaped(log.parent)}
minfds=1024
[unix_http_server]
file={_escaped(supervisor.socket)}
chmod=0600
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


def _program(state: StateFolder, spec: ProcessSpec, supervised: bool) -> str:
    arguments = launch_command(state.run / f"{spec.name}.json", state.pid_file(spec.name))
    command = " ".join('"' + _escaped(argument) + '"' for argument in arguments)
    return f"""[program:{spec.name}]
command={command}
autostart=false
autorestart={str(supervised).lower()}
startsecs={2 if supervised else 0}
startretries=20
stopsignal={spec.stop_signal}
stopwaitsecs={STOP_SECONDS[spec.stage]}
killasgroup=true
redirect_stderr=true
stdout_logfile={_escaped(state.logs / (spec.name + ".log"))}
stdout_logfile_maxbytes={_LOG_BYTES}
stdout_logfile_backups=2
"""


def _group(name: str, programs: list[str], stage: Stage) -> str:
    return f"[group:{name}]\nprograms={','.join(programs)}\npriority={int(stage)}\n"
