"""Writes a pid file, sets the parent-death signal, then executes the program of the stack.

Run as a script with only the standard library, so that it takes a few milliseconds.
"""

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def start_time(pid: int) -> str:
    """The start time of a process, "" if it ended; it distinguishes a later process with the same pid."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except OSError:
        return _portable_start_time(pid)


def _portable_start_time(pid: int) -> str:
    try:
        import psutil

        return str(psutil.Process(pid).create_time())
    except Exception:  # psutil may be absent, and its errors depend on the platform
        return ""


def die_with_parent(signal_number: int) -> None:
    """Have the kernel signal this process when the thread that started it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def write_pid_file(path: str, pid: int) -> None:
    """Atomically write the pid and its start time."""
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(f"{pid} {start_time(pid)}\n")
    os.replace(path + ".new", path)


def main(spec_path: str, pid_path: str) -> None:
    """Replace this process by the program in the specification."""
    with open(spec_path, encoding="utf-8") as file:
        spec = json.load(file)
    write_pid_file(pid_path, os.getpid())
    env = {key: value for key, value in os.environ.items() if not key.startswith("SUPERVISOR_")}
    env.update(spec["env"])
    os.chdir(spec["cwd"])
    if spec["user"]:
        user, group = spec["user"]
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    die_with_parent(getattr(signal, "SIG" + spec["death_signal"]))  # after setuid, which clears it
    os.execvpe(spec["argv"][0], spec["argv"], env)  # noqa: S606 - the launcher's purpose


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
