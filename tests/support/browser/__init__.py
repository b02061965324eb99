"""A real browser: Chromium's headless shell from the npm registry, driven by Playwright."""

import asyncio
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Page, async_playwright

from services.cli.stack.binaries import default_cache

HERE: Final = Path(__file__).parent
PINNED: Final = ("package.json", "package-lock.json", "unpack.mjs")
QUIET: Final = (
    "--no-sandbox",  # CI runs as root
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> Path:
    """The folder with `chromium` and its libraries, installed once; npm checks the hashes in `package-lock.json`."""
    pinned = b"".join((HERE / name).read_bytes() for name in PINNED)
    cache = default_cache()
    target = cache / f"chromium-{hashlib.sha256(pinned).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _install(target)
    return target


def _install(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        for name in PINNED:
            shutil.copy(HERE / name, folder)
        unpacked = Path(folder) / "unpacked"
        unpacked.mkdir()
        env = {**os.environ, "TMPDIR": str(unpacked)}
        for command in (
            ("npm", "ci", "--silent", "--no-audit", "--no-fund"),
            ("node", "unpack.mjs"),
        ):
            subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        unpacked.rename(target)


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A browser without a profile: the pinned one for Linux, or the program that `CHROMIUM` names."""
    program = os.environ.get("CHROMIUM")
    env: dict[str, str | float | bool] = {**os.environ}
    if program is None:
        folder = await asyncio.to_thread(chromium)
        program = str(folder / "chromium")
        env["LD_LIBRARY_PATH"] = str(folder / "al2023" / "lib")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=QUIET, env=env)
        yield browser
        await browser.close()


@asynccontextmanager
async def open_page(browser: Browser) -> AsyncIterator[Page]:
    """A new page with storage of its own."""
    page = await browser.new_page(viewport={"width": 1400, "height": 900})
    yield page
    await page.close()
