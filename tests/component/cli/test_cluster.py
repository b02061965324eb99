"""Data folders of Postgres, copied from a template."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from services.cli.stack import cluster, postgres
from services.cli.stack.state import StateFolder
from tests.requirements import requirement
from tests.support.wait import wait_until

ROOT: Final = Path(__file__).parents[3]
MAKE: Final = "from services.cli.stack import postgres; print(postgres.template())"
PORT: Final = 5999
"""In the arguments of a server that is not started."""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A temporary folder with a short path, as the socket of the server that makes a template needs."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        yield Path(folder)


def maker(folder: Path, scratch: Path) -> "subprocess.Popen[str]":
    """A command that needs the template, with a cache of its own."""
    env = {**os.environ, "YOCASO_CACHE": str(folder / "cache"), "TMPDIR": str(scratch)}
    return subprocess.Popen(
        [sys.executable, "-c", MAKE], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )


def servers_in(folder: Path) -> list[int]:
    """Processes whose arguments name a folder."""
    found = psutil.process_iter(["cmdline"])
    return [each.pid for each in found if str(folder) in " ".join(each.info["cmdline"] or ())]


@requirement("stack:template")
@pytest.mark.timeout(240)
async def test_after_a_killed_command_concurrent_ones_make_one_template(
    tmp_path: Path, scratch: Path
) -> None:
    cache = tmp_path / "cache" / "bin"
    uid = postgres._programs().uid
    unused, recent = (cache / f"postgres-{name}-{uid}" for name in ("unused", "recent"))
    for folder in (unused, recent):
        folder.mkdir(parents=True)
    long_ago = time.time() - cluster.KEPT_SECONDS - 1
    os.utime(unused, (long_ago, long_ago))

    killed = maker(tmp_path, scratch)

    def has_server() -> bool:
        assert killed.poll() is None, "the command ended first"
        return any(scratch.glob("*/.s.PGSQL.*"))

    await wait_until(has_server, 100, "the server")
    killed.kill()
    killed.communicate()
    await wait_until(lambda: servers_in(scratch) == [], 30, "the end of the server")

    makers = [maker(tmp_path, scratch) for _ in range(2)]
    printed = {each.communicate()[0].strip() for each in makers}
    assert [each.returncode for each in makers] == [0, 0]
    [made] = map(Path, printed)
    left = {path for path in cache.iterdir() if path.suffix != ".lock"}
    assert left == {made, recent}
    assert (made / "PG_VERSION").exists()


@requirement("stack:template")
async def test_copies_of_a_template_share_no_secret(tmp_path: Path) -> None:
    states = [StateFolder(tmp_path / name) for name in ("one", "other")]
    for state in states:
        state.create()
        postgres.spec(state, PORT, f"password-of-{state.path.name}")
    one, other = map(verifier, states)
    assert one != other
    assert not {one, other} & set(re.findall(rb"SCRAM-SHA-256[^\0]+", stored(postgres.template())))


def verifier(state: StateFolder) -> bytes:
    """What the server keeps of the password of a data folder."""
    statement = "SELECT rolpassword FROM pg_authid WHERE rolcanlogin;\n\n"
    shown = postgres._programs().run_single(state.data / "postgres", "postgres", statement)
    return re.findall(r'SCRAM-SHA-256[^"]+', shown)[0].encode()


def stored(folder: Path) -> bytes:
    """The files that all databases of a data folder share."""
    files = (path for path in (folder / "global").iterdir() if path.is_file())
    return b"".join(path.read_bytes() for path in files)
