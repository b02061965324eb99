"""`python -m tests.support.model_server --port 14000`."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.support.model_server.server import DEFAULT_MODELS, ModelServer


async def _serve(port: int, models: tuple[str, ...], journal: Path | None) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with ModelServer(port, models, journal) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    """Serve until a signal; the first line printed is the base URL."""
    parser = argparse.ArgumentParser(description="A scripted model with OpenRouter's API.")
    parser.add_argument("--port", type=int, default=0, help="0 selects a free one")
    parser.add_argument(
        "--models", default=",".join(DEFAULT_MODELS), help="comma list for GET /v1/models"
    )
    parser.add_argument(
        "--journal", type=Path, help="file with the requests, which survives a kill"
    )
    chosen = parser.parse_args()
    serving = _serve(chosen.port, tuple(chosen.models.split(",")), chosen.journal)
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


if __name__ == "__main__":
    main()
