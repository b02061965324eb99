"""`yocaso sidecar APP` runs the Dapr sidecar of another app beside a running stack, so that the app can call it."""

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from services.cli.stack.certificates import enrol
from services.cli.stack.errors import StackError
from services.cli.stack.ports import LOOPBACK, port_user, ports_in_use
from services.cli.stack.state import StateFolder
from services.contracts.apps import EDGE, require_foreign
from services.kit.settings import APP_ID

GRPC_STEP: Final = 1000
INTERNAL_STEP: Final = 2000
METRICS_STEP: Final = 6000
"""Distances of the other ports from the HTTP port, as in the ports of the stack."""
CONTROL_PLANE: Final = ("placement", "scheduler")
"""Names of other identities than those of apps."""
_MTLS: Final = ("--sentry-address", "--control-plane-trust-domain")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar's program with its arguments, and the variables that it needs beside those of the shell."""

    argv: list[str]
    env: dict[str, str]


def run_sidecar(state: Path, app_id: str, http_port: int, app_port: int | None) -> NoReturn:
    """Replace this process by the sidecar; exit with status 1 if it cannot start."""
    try:
        _require_free(_ports(http_port))
        sidecar = prepare_sidecar(StateFolder(state), app_id, http_port, app_port)
    except (StackError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    os.execve(sidecar.argv[0], sidecar.argv, {**os.environ, **sidecar.env})  # noqa: S606


def prepare_sidecar(
    state: StateFolder, app_id: str, http_port: int, app_port: int | None
) -> Sidecar:
    """Write the sidecar's configuration, with mTLS its identity too, and return how to start it.

    Raises:
        StackError: no stack was started in this folder.
        ValueError: not an app-id, or that of a part of the platform.
    """
    if not re.fullmatch(APP_ID, app_id) or app_id in CONTROL_PLANE:
        raise ValueError(f"{app_id!r} is not an app-id that another app may have")
    require_foreign([app_id])
    example = _launch_of_edge(state)
    arguments: list[str] = example["argv"]
    ports = _ports(http_port)
    if app_port is not None:
        ports["app-port"] = app_port
    argv = [
        arguments[0],
        *("--app-id", app_id),
        *("--config", str(_write_configuration(state, app_id))),
        *("--read-buffer-size", "64Ki"),  # fits large tokens
        *("--dapr-listen-addresses", LOOPBACK),
        *("--dapr-internal-grpc-listen-address", LOOPBACK),
        *("--metrics-listen-address", LOOPBACK),
        *(word for name, port in ports.items() for word in (f"--{name}", str(port))),
    ]
    env = {"DAPR_HOST_IP": LOOPBACK}
    if "--enable-mtls" not in arguments:
        return Sidecar(argv, env)
    enrol(state, app_id)
    mtls = [word for flag in _MTLS for word in (flag, arguments[arguments.index(flag) + 1])]
    shared = {name: example["env"][name] for name in ("NAMESPACE", "DAPR_TRUST_ANCHORS")}
    token = str(state.run / "identities" / app_id)
    return Sidecar(
        [*argv, "--enable-mtls", *mtls], {**env, **shared, "DAPR_SENTRY_TOKEN_FILE": token}
    )


def _require_free(ports: dict[str, int]) -> None:
    if taken := ports_in_use(ports.items()):
        lines = [f"port {port} ({name}) is in use by {port_user(port)}" for name, port in taken]
        raise StackError("\n".join([*lines, "choose another --http-port"]))


def _ports(http_port: int) -> dict[str, int]:
    return {
        "dapr-http-port": http_port,
        "dapr-grpc-port": http_port + GRPC_STEP,
        "dapr-internal-grpc-port": http_port + INTERNAL_STEP,
        "metrics-port": http_port + METRICS_STEP,
    }


def _launch_of_edge(state: StateFolder) -> dict[str, Any]:
    try:
        return json.loads((state.run / f"{EDGE.id}-daprd.json").read_text())
    except (OSError, ValueError):
        raise StackError(
            f"no stack was started in {state.path}: run `yocaso up`, or set --state to its folder"
        ) from None


def _write_configuration(state: StateFolder, app_id: str) -> Path:
    """The part of the edge's sidecar configuration by which apps are found."""
    content = yaml.safe_load((state.run / f"config-{EDGE.id}.yaml").read_text())
    content["metadata"]["name"] = app_id
    content["spec"] = {"nameResolution": content["spec"]["nameResolution"]}
    target = state.run / f"sidecar-{app_id}.yaml"
    target.write_text(yaml.safe_dump(content, sort_keys=False))
    return target
