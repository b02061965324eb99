"""The commands `infra`, `doctor` and `token` as processes, with signals."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from services.cli.stack.binaries import OPTIONAL, VERSIONS
from services.cli.stack.launcher import write_pid_file
from services.cli.stack.stack import Stack
from tests.component.cli.command import OFFSET, TEMPLATE, Command, is_alive
from tests.requirements import requirement
from tests.support.wait import wait_until

STOP_SECONDS = 10


@requirement("stack:stop-clean")
async def test_a_signal_stops_all_processes_in_time(command: Command) -> None:
    await command.ready()
    pids = command.processes
    assert {"supervisor", "postgres", "valkey", "placement", "scheduler"} <= set(pids)
    command.signal(signal.SIGTERM)
    assert await asyncio.wait_for(command.ended(), STOP_SECONDS) == 0
    assert [name for name, pid in pids.items() if is_alive(pid)] == []


@requirement("stack:stop-at-once")
async def test_a_second_signal_kills_what_still_runs(command: Command) -> None:
    await command.ready()
    pids = command.processes
    os.kill(pids["placement"], signal.SIGSTOP)  # would take 3 s to be killed
    command.signal(signal.SIGINT)
    await command.read_until("stopping; waiting for")
    assert await command.press_until_ended(signal.SIGINT, 2) == 130
    assert [name for name, pid in pids.items() if is_alive(pid)] == []


@requirement("stack:stop-at-once", "stack:stop-clean")
async def test_a_signal_that_a_wrapper_passes_on_counts_once(command: Command) -> None:
    await command.ready()
    pids = command.processes
    command.signal(signal.SIGINT)
    command.signal(signal.SIGINT)
    assert await asyncio.wait_for(command.ended(), STOP_SECONDS) == 0
    assert [name for name, pid in pids.items() if is_alive(pid)] == []


@requirement("stack:stop-clean")
async def test_a_signal_during_the_start_leaves_no_process(command: Command) -> None:
    await command.begin()
    await command.read_until("starting")
    command.signal(signal.SIGINT)
    assert await asyncio.wait_for(command.ended(), STOP_SECONDS) == 0
    # A supervisord that was starting ends by its parent-death signal, shortly after the command.
    await wait_until(lambda: command.processes == {}, 10, "the last process to end")


@requirement("stack:reclaim")
async def test_after_a_killed_command_the_next_one_ends_leftovers_and_starts(
    command: Command,
) -> None:
    await command.ready()
    pids = command.processes
    command.signal(signal.SIGKILL)
    await command.ended()
    command.output = ""
    await command.ready()
    assert [name for name, pid in pids.items() if is_alive(pid)] == []


@requirement("stack:reclaim")
async def test_a_leftover_process_is_ended_and_a_process_with_a_reused_pid_is_not(
    tmp_path: Path,
) -> None:
    stack = Stack(tmp_path, port_offset=OFFSET, dapr_yaml=TEMPLATE)
    stack.state.create()
    with _a_process() as leftover, _a_process() as other:
        write_pid_file(str(stack.state.pid_file("llm")), leftover.pid)
        stack.state.pid_file("auth").write_text(f"{other.pid} 1\n")
        stack.prepare(apps=False)
        stack.stop()
        assert leftover.wait(5) == -signal.SIGKILL
        assert other.poll() is None


@requirement("stack:second-up")
async def test_a_second_command_on_the_same_folder_fails(servers: Stack) -> None:
    second = Command(servers.state.path)
    await second.begin()
    assert await second.ended() == 1
    assert "a stack already runs in" in second.output
    assert "--state" in second.output


@requirement("stack:port-in-use")
async def test_the_error_for_a_port_in_use_names_both_processes(
    command: Command,
) -> None:
    with socket.create_server(("127.0.0.1", 6380 + OFFSET)):
        await command.begin()
        assert await command.ended() == 1
    assert f"port {6380 + OFFSET} (valkey) is in use by process {os.getpid()}" in command.output
    assert "YOCASO_PORT_OFFSET" in command.output


@requirement("stack:state-survives")
async def test_stored_data_survives_a_stop_and_a_start(command: Command) -> None:
    await command.ready()
    url = Stack(command.state, port_offset=OFFSET, dapr_yaml=TEMPLATE).database_url()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept (value text); INSERT INTO kept VALUES ('kept')")
    await connection.close()
    command.signal(signal.SIGTERM)
    await command.ended()
    command.output = ""
    await command.ready()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT value FROM kept") == "kept"
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.close()


async def test_postgres_rejects_a_wrong_password(servers: Stack) -> None:
    wrong = make_url(servers.database_url()).set(password="wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong.render_as_string(hide_password=False))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LLM_BASE_URL", "localhost:6090"),
        ("YOCASO_TRUSTED_APPS", "backend,Web"),
        ("YOCASO_TRUSTED_APPS", "backend,llm"),
    ],
)
async def test_an_invalid_setting_is_named(command: Command, variable: str, value: str) -> None:
    await command.begin(**{variable: value})
    assert await command.ended() == 1
    assert variable in command.output


@requirement("stack:doctor")
async def test_doctor_reports_what_is_missing_and_how_to_get_it(
    command: Command, tmp_path: Path
) -> None:
    cache = tmp_path / "empty"
    with socket.create_server(("127.0.0.1", 6432 + OFFSET)):
        await command.begin("doctor", PATH="/nonexistent", YOCASO_CACHE=str(cache))
        assert await command.ended() == 1
    for name in ("edge", *VERSIONS.keys() - {"daprd"}):  # that of `dapr init` is found without PATH
        user = OPTIONAL.get(name, "`yocaso up`")
        assert (
            f"program {name}: not there yet; built once for {user} into {cache}" in command.output
        )
    assert "MISSING  go" in command.output
    assert "ok       dapr: not on PATH, and needed only for `dapr run`" in command.output
    assert "https://go.dev/dl/" in command.output
    assert f"MISSING  port {6432 + OFFSET}: needed by postgres" in command.output


async def test_the_error_of_token_without_a_stack_names_the_command_to_run(
    command: Command,
) -> None:
    await command.begin("token", "--user", "u", "--email", "e@example.com")
    assert await command.ended() == 1
    assert "yocaso up" in command.output


@contextlib.contextmanager
def _a_process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()
