"""Writes the archive of a release: `python -m tests.component.upgrade.make_archive COMMIT`.

It builds the commit in a folder and an environment of its own, has it do work of every kind, kills every process, and
packs the state folder. Done once per release, as CONTRIBUTING says.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from services.cli.stack.ports import PortPlan
from services.cli.stack.reclaim import reclaim
from services.cli.stack.state import StateFolder
from tests.component.upgrade.archive import pack
from tests.component.upgrade.kept import write_kept
from tests.support.model_server import ModelServer
from tests.support.platform import Client
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

ROOT: Final = Path(__file__).parents[3]
ARCHIVES: Final = Path(__file__).parent / "archives"
OFFSET: Final = offset_of("upgrade")
START_SECONDS: Final = 900.0
"""Enough to build daprd."""


class Release:
    """A commit that runs by its own command line."""

    def __init__(self, name: str, tree: Path, state: StateFolder, model: ModelServer) -> None:
        self.name = name
        self.model = model
        self._tree = tree
        self._state = state
        self._command: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        """Take the commit's files, and the packages that it locks."""
        archive = subprocess.run(
            ["git", "archive", self.name], cwd=ROOT, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x"], cwd=self._tree, input=archive.stdout, check=True)
        environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
        sync = ["uv", "sync", "--frozen", "--all-extras", "--no-dev"]
        subprocess.run(sync, cwd=self._tree, check=True, env=environment)

    async def start(self) -> None:
        """Run `yocaso up` until a turn is answered."""
        self._begin()
        await wait_until(self._answers, START_SECONDS, "the release to answer", every=0.5)

    def _begin(self) -> None:
        options = ["--state", str(self._state.path), "--port-offset", str(OFFSET), "--quiet"]
        self._command = subprocess.Popen(
            [str(self._python), "-m", "services.cli.main", "up", *options],
            cwd=self._tree,
            env={
                **os.environ,
                "LLM_BASE_URL": self.model.base_url,
                "LLM_DEFAULT_MODEL": "scripted/one",
                "LLM_MODELS": "scripted/one,scripted/two",
            },
        )

    def kill(self) -> None:
        """Kill the command, and with it every process that it started."""
        assert self._command is not None
        self._command.kill()
        self._command.wait()
        for pid in self._state.leftovers().values():
            os.kill(pid, signal.SIGCONT)
        reclaim(self._state)

    @property
    def database_url(self) -> str:
        return self._state.load_secrets()["postgresUrl"]

    @property
    def key_secret(self) -> str:
        return self._state.load_secrets()["authKeySecret"]

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Client]:
        token = await asyncio.to_thread(self._token, user)
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            url = json.loads((self._state.run / "stack.json").read_text())["edge_url"]
            yield Client(url, token, session)

    def freeze(self, process: str) -> None:
        os.kill(self._state.leftovers()[process], signal.SIGSTOP)

    async def _answers(self) -> bool:
        assert self._command is not None
        assert self._command.poll() is None, "`yocaso up` ended"
        try:
            async with self.client("probe") as client:
                created = await client.call("CreateConversation")
                body = {"conversationId": created.body["conversationId"], "text": "ready?"}
                return (await client.call("SendMessage", **body)).status == 200
        except (OSError, subprocess.CalledProcessError, aiohttp.ClientError, KeyError):
            return False

    def _token(self, user: str) -> str:
        options = ["--user", user, "--email", f"{user}@example.com", "--state", self._state.path]
        command = [self._python, "-m", "services.cli.main", "token", *options]
        done = subprocess.run(command, cwd=self._tree, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    @property
    def _python(self) -> Path:
        return self._tree / ".venv" / "bin" / "python"


async def make(commit: str, folder: Path) -> Path:
    """Make the archive and return its path."""
    tree, state = folder / "tree", StateFolder(folder / "state")
    tree.mkdir()
    target = ARCHIVES / f"{commit}.tar.xz"
    async with ModelServer() as model:
        release = Release(commit, tree, state, model)
        release.install()
        try:
            await release.start()
            kept = await write_kept(release)
        finally:
            release.kill()
    pack(state, PortPlan(OFFSET).of("postgres"), kept, target)
    return target


def main(commit: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="yocaso-release-"))
    short = ["git", "rev-parse", "--short=7", f"{commit}^{{commit}}"]
    name = subprocess.run(short, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    target = asyncio.run(make(name.strip(), folder))
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size // 1024} KB")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
