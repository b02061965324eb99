"""A full disk for one process: its writes fail with ENOSPC. It needs no mount, and so no root."""

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from services.cli.stack.binaries import default_cache

SOURCE: Final = Path(__file__).with_name("full_disk.c")
COMPILE: Final = ("cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror")
Mode = Literal["extend", "all"]
"""Which writes fail: those that make a file longer, or every one."""


class FullDisk:
    """`environment` of the process. Statically linked programs, such as those in Go, are not affected."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def environment(self) -> dict[str, str]:
        """Variables that preload the library."""
        return {"LD_PRELOAD": str(library()), "FULL_DISK_FILE": str(self._file)}

    @contextmanager
    def full(self, mode: Mode) -> Iterator[None]:
        """The disk is full during the block."""
        staged = self._file.with_suffix(".new")
        staged.write_text(mode)
        staged.chmod(0o644)  # the server may run as another user
        staged.replace(self._file)
        try:
            yield
        finally:
            self._file.unlink()


def library() -> Path:
    """The path of the library, compiled if missing."""
    if shutil.which(COMPILE[0]) is None:
        raise RuntimeError("cc is not on PATH: the tests of a full disk need a C compiler")
    target = (
        default_cache() / f"full-disk-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}.so"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            staged = target.with_name(f".{target.name}")
            subprocess.run((*COMPILE, "-o", str(staged), str(SOURCE), "-ldl"), check=True)
            staged.replace(target)
    return target
