"""What `dapr run` needs of a stack: its programs, and a template that names its servers."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.cli.stack.name_resolution import registry_of
from services.cli.stack.ports import LOOPBACK, PortPlan
from services.cli.stack.state import StateFolder
from services.cli.stack.template import AppEntry, read_template

DAPRD: Final = "daprd"
_LAUNCHER: Final = f"""#!/bin/sh
# Written by `yocaso infra`: a run template has no fields for these two addresses, and daprd's default is every interface.
exec {{daprd}} "$@" --dapr-internal-grpc-listen-address {LOOPBACK} --metrics-listen-address {LOOPBACK}
"""


def link_programs(state: StateFolder, programs: Mapping[str, Path]) -> None:
    """Link programs into `bin`, which is on the PATH of the `env` file, and write `.dapr/bin/daprd`.

    `dapr run` starts the latter, as the `env` file sets DAPR_RUNTIME_PATH to the state folder.
    """
    for name, program in programs.items():
        real = program.resolve()  # may be this link, found on the PATH of the `env` file
        link = state.bin / name
        link.unlink(missing_ok=True)
        link.symlink_to(real)
    launcher = state.path / ".dapr" / "bin" / DAPRD
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(_LAUNCHER.format(daprd=shlex.quote(str(state.bin / DAPRD))))
    launcher.chmod(0o755)


def next_step(state: StateFolder, ports: PortPlan, file: Path) -> str:
    """The lines to type after `yocaso infra`, or why this template cannot use its servers."""
    if all(_names_servers(app, state, ports) for app in read_template(file).apps):
        return (
            "Next, in another shell:\n"
            f"  . {shlex.quote(str(state.env_file))}\n  dapr run -f {shlex.quote(str(file))}\n"
        )
    return (
        f"`dapr run -f {file}` cannot use these servers, whose ports or state folder the file does not name: "
        "it needs `yocaso infra` without --port-offset and --state.\n"
    )


def _names_servers(app: AppEntry, state: StateFolder, ports: PortPlan) -> bool:
    named = (app.placement_host_address, app.scheduler_host_address)
    running = tuple(f"{LOOPBACK}:{ports.of(name)}" for name in ("placement", "scheduler"))
    config = app.config_file_path
    registry = registry_of(Path(config), app.folder) if config else None
    return named == running and registry in (None, state.names)
