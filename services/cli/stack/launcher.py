"""Start one process of the stack: record whose it is, tie its life to the supervisor's, then become it.

Run as a file with the standard library only, so that it costs a few milliseconds.
"""

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def start_mark(pid: int) -> str:
    """What tells this process from a later one with the same pid: its start time since boot."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except OSError:
        return _portable_start_mark(pid)


def _portable_start_mark(pid: int) -> str:
    try:
        import psutil

        return str(psutil.Process(pid).create_time())
    except Exception:  # a process that is gone has no mark, whatever the reason
        return ""


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send a signal to this process when the thread that started it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def record(path: str, pid: int) -> None:
    """Write `pid mark`, whole or not at all."""
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(f"{pid} {start_mark(pid)}\n")
    os.replace(path + ".new", path)


def main(spec_path: str, pid_path: str) -> None:
    """Become the process that the specification describes."""
    with open(spec_path, encoding="utf-8") as file:
        spec = json.load(file)
    record(pid_path, os.getpid())
    env = {key: value for key, value in os.environ.items() if not key.startswith("SUPERVISOR_")}
    env.update(spec["env"])
    os.chdir(spec["cwd"])
    if spec["user"]:
        user, group = spec["user"]
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    die_with_parent(getattr(signal, "SIG" + spec["death_signal"]))  # after setuid, which clears it
    os.execvpe(spec["argv"][0], spec["argv"], env)  # noqa: S606 - becoming it is the purpose


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
