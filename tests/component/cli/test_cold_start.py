"""The first start: programs are built while servers that need none of them start."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from services.cli.stack import postgres
from tests.component.cli.command import Command, is_alive
from tests.component.cli.gated_go import BUILT, GatedGo
from tests.requirements import requirement
from tests.support.wait import wait_until

STOP_SECONDS = 10


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """The programs that the gated `go` copies."""
    BUILT.builds(["placement", "scheduler", "openfga", "daprd"]).wait()


@pytest.fixture
def go(tmp_path: Path) -> GatedGo:
    return GatedGo(tmp_path)


async def begin(command: Command, go: GatedGo, tmp_path: Path) -> None:
    """A command without built programs; it has the template of the database, which needs none of them."""
    template = postgres.template()
    cache = tmp_path / "cache" / "bin"
    cache.mkdir(parents=True)
    (cache / template.name).symlink_to(template)
    await command.begin(PATH=go.path, HOME=str(tmp_path), YOCASO_CACHE=str(tmp_path / "cache"))


@pytest.mark.timeout(60)
@requirement("stack:cold-start")
async def test_postgres_and_valkey_are_ready_before_the_first_program_is_built(
    command: Command, go: GatedGo, tmp_path: Path
) -> None:
    await begin(command, go, tmp_path)
    for name in ("postgres", "valkey"):
        await command.read_until(f"{name:<16} | ready in")
    await command.read_until("built 0 of 4 programs")
    assert "openfga          | ready" not in command.output
    go.open()
    await command.read_until("The servers are ready in")
    for name in ("placement", "scheduler", "openfga"):
        assert f"{name:<16} | ready in" in command.output
    assert not [pid for pid in go.builds + go.children if is_alive(pid)]


@requirement("stack:stop-clean", "stack:cold-start")
async def test_a_signal_during_the_builds_ends_compilers_and_servers(
    command: Command, go: GatedGo, tmp_path: Path
) -> None:
    await begin(command, go, tmp_path)
    await command.read_until("valkey           | ready in")
    await wait_until(lambda: len(go.children) == 2, 40, "two builds with their children")
    command.signal(signal.SIGINT)
    assert await asyncio.wait_for(command.ended(), STOP_SECONDS) == 0
    assert not [pid for pid in go.builds + go.children if is_alive(pid)]
    await wait_until(lambda: command.processes == {}, 30, "the last process to end")
    left = [path.name for path in (tmp_path / "cache" / "bin").iterdir()]
    assert [name for name in left if not name.endswith(".lock")] == [postgres.template().name]


@requirement("stack:reclaim", "stack:cold-start")
async def test_builds_end_with_a_killed_command(
    command: Command, go: GatedGo, tmp_path: Path
) -> None:
    await begin(command, go, tmp_path)
    await wait_until(lambda: len(go.children) == 2, 40, "two builds with their children")
    command.signal(signal.SIGKILL)
    await command.ended()
    await wait_until(
        lambda: not [pid for pid in go.builds if is_alive(pid)], what="the builds to end"
    )
    for pid in go.children:  # a real compiler ends by itself
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


@requirement("stack:builds")
async def test_without_go_the_start_fails_before_any_process(
    command: Command, tmp_path: Path
) -> None:
    await command.begin(PATH="/usr/bin:/bin", HOME=str(tmp_path), YOCASO_CACHE=str(tmp_path))
    assert await command.ended() == 1
    assert "https://go.dev/dl/" in command.output
    assert "ready in" not in command.output
