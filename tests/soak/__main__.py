"""`poe soak --seconds N [--seed S]`: random faults of every process under load, then the checkers; exit code 1 on a violation."""

import argparse
import asyncio
import json
import random
import resource
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.soak.caller import Caller
from tests.soak.checks import check_invariants
from tests.soak.events import check_events, check_jobs
from tests.soak.footprint import Footprint, check_footprints, footprints
from tests.soak.ledger import Ledger, Phase, say
from tests.soak.load import User
from tests.soak.logs import check_logs
from tests.soak.nemesis import Nemesis
from tests.soak.residual_data import check_residual_data, check_visibility, delete_all
from tests.support.checkers import check_ok_rate
from tests.support.history import History
from tests.support.platform import SHORT_RETENTION, Client, Platform
from tests.support.port_offsets import offset_of
from tests.support.retries import RECOVERY_SECONDS

OFFSET: Final = offset_of("soak")
QUIET_SECONDS: Final = 15.0
PROGRESS_SECONDS: Final = 10.0
MIN_APPENDS_PER_SECOND: Final = 0.5
MAX_SECONDS_PER_FAULT: Final = 45.0


def main() -> None:
    """Run one soak and print its result."""
    parser = argparse.ArgumentParser(prog="poe soak", description=__doc__)
    parser.add_argument("--seconds", type=float, required=True, help="how long faults are injected")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--users", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where histories and logs go; kept on failure")
    chosen = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="yocaso-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # Postgres runs as another user
    say(f"seed {chosen.seed}, folder {folder}")
    soak = Soak(folder, chosen.seconds, chosen.seed, chosen.users)
    figures = soak.run()
    say(json.dumps(figures, ensure_ascii=False))
    say(f"verdict: {figures['verdict']}")
    if figures["problems"]:
        say(f"kept: {folder}")
        raise SystemExit(1)
    if chosen.folder is None:
        shutil.rmtree(folder, ignore_errors=True)


class Soak:
    """One run: load without faults, load with faults, then the checkers."""

    def __init__(self, folder: Path, seconds: float, seed: int, users: int) -> None:
        self.ledger = Ledger(folder)
        self._seconds = seconds
        self._seed = seed
        self._source = random.Random(seed)
        self._journal = folder / "model.jsonl"
        self._names = [f"soak-{number}" for number in range(users)]
        self._history = History(folder / "history.jsonl")
        self._platform = Platform(
            folder / "platform", OFFSET, env=SHORT_RETENTION, journal=self._journal
        )
        self._users: list[User] = []
        self._before: dict[str, Footprint] = {}
        self._after: dict[str, Footprint] = {}

    def run(self) -> dict[str, Any]:
        with self._history:
            self._platform.start()
            try:
                asyncio.run(self._run())
            finally:
                self._platform.stop()
                self.ledger.close()
        return self._figures()

    async def _run(self) -> None:
        await self._platform.until_answering()
        async with AsyncExitStack() as exits:
            for name in self._names:
                self._users.append(await self._user(exits, name))
            self._before = await self._load()
            say("checking")
            await check_invariants(
                self._platform, self._users, self.ledger, self._history, self._journal
            )
            probe = await self._user(exits, "probe")
            await delete_all([*self._users, probe])
        await check_events(self._platform, self._users, self.ledger)
        await check_jobs(self._platform, self.ledger)
        await check_residual_data(self._platform, self.ledger)
        self._after = await check_footprints(self._platform, self._before, self.ledger)
        check_logs(self._platform, self.ledger)
        self._check_not_vacuous()

    async def _user(self, exits: AsyncExitStack, name: str) -> User:
        timeout = aiohttp.ClientTimeout(total=170, sock_connect=5, sock_read=40)
        connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        await exits.enter_async_context(session)
        client = Client(self._platform.edge_url, self._platform.token(name), session)
        source = random.Random(self._source.random())
        caller = Caller(name, client, self.ledger, source)
        return User(caller, self._history, source, asyncio.Event())

    async def _load(self) -> dict[str, Footprint]:
        """Load without faults, then with faults; returns the footprints in between."""
        running = [asyncio.create_task(user.run()) for user in self._users]
        reporting = asyncio.create_task(self._report_progress())
        try:
            await self._unless_ended(running, asyncio.sleep(QUIET_SECONDS))
            before = await footprints(self._platform)
            await check_visibility(self._platform, self.ledger)
            self.ledger.phase = Phase.FAULTS
            nemesis = Nemesis(self._platform, self.ledger, self._source)
            await self._unless_ended(running, nemesis.run(self._seconds))
            self.ledger.heal()
            say("faults are over")
            for user in self._users:
                user.stopping.set()
            done, late = await asyncio.wait(running, timeout=3 * RECOVERY_SECONDS)
            if late:
                self.ledger.problem("users that never ended", f"{len(late)} of {len(running)}")
            for each in done:
                each.result()
        finally:
            for task in (*running, reporting):
                task.cancel()
            await asyncio.gather(*running, reporting, return_exceptions=True)
        return before

    async def _unless_ended(self, running: "list[asyncio.Task[None]]", work: Any) -> None:
        """Await work, and fail at once if a user stops because of an error in the soak itself."""
        working = asyncio.ensure_future(work)
        await asyncio.wait([working, *running], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            for each in running:
                if each.done():
                    each.result()
        await working

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            ledger = self.ledger
            at = time.monotonic() - ledger.began
            rates = {phase.value: round(ledger.ok_rate(phase), 3) for phase in Phase}
            say(
                f"{at:.0f} s {ledger.phase}: {dict(ledger.done)}, ok {rates}, "
                f"{len(ledger.faults)} faults, problems {dict(ledger.problems)}"
            )

    def _check_not_vacuous(self) -> None:
        """A soak with too little load or too few faults proves nothing."""
        ledger = self.ledger
        ok, refused = (ledger.attempts[Phase.FAULTS, each] for each in (True, False))
        for each in check_ok_rate(ok, ok + refused):
            ledger.problem("vacuous", f"under faults {each}")
        appends = len(self._history.operations("append"))
        if appends < MIN_APPENDS_PER_SECOND * self._seconds:
            ledger.problem("vacuous", f"{appends} appends in {self._seconds:g} s")
        if not ledger.done["statuses read"]:
            ledger.problem("vacuous", "no status was read")
        if len(ledger.faults) < self._seconds / MAX_SECONDS_PER_FAULT:
            ledger.problem("vacuous", f"{len(ledger.faults)} faults in {self._seconds:g} s")

    def _figures(self) -> dict[str, Any]:
        ledger = self.ledger
        faults: dict[str, int] = {}
        for each in ledger.faults:
            name = f"{each.kind} {each.target}"
            faults[name] = faults.get(name, 0) + 1
        total = {name: sum(found.mib for found in side.values()) for name, side in self._sides()}
        return {
            "figure": "soak",
            "seconds": self._seconds,
            "seed": self._seed,
            "verdict": "violated" if ledger.problems else "clean",
            "problems": dict(ledger.problems),
            "operations": len(self._history.operations()),
            "ok_rate": {phase.value: round(ledger.ok_rate(phase), 3) for phase in Phase},
            "attempts": sum(ledger.attempts.values()),
            **ledger.done,
            "faults": len(ledger.faults),
            "faults_by_kind": dict(sorted(faults.items())),
            "refusals": dict(ledger.refusals.most_common(12)),
            "memory_mib": {name: round(value, 1) for name, value in total.items()},
            "files": {name: sum(f.files for f in side.values()) for name, side in self._sides()},
        }

    def _sides(self) -> list[tuple[str, dict[str, Footprint]]]:
        return [("before", self._before), ("after", self._after)]


if __name__ == "__main__":
    main()
