"""Reads `dapr.yaml` like `dapr run -f` and derives the processes of each app and its sidecar."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from services.cli.stack.errors import StackError
from services.cli.stack.ports import LOOPBACK, PortPlan
from services.cli.stack.process import SMALL_HEAP, ProcessSpec, Readiness, Stage

REPLICA_STEP: Final = 100
"""Distance between the ports of two hosts of one app."""
GRACEFUL_SECONDS: Final = 2
"""Seconds; short, because a sidecar stops after its app and has no calls left."""

_Text = Annotated[
    str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)
]


class _CommonFields(BaseModel):
    """Fields of `common` and of an app."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    resources_paths: list[str] | None = None
    config_file_path: str | None = None
    app_protocol: str | None = None
    app_max_concurrency: int | None = None
    api_listen_addresses: str | None = None
    log_level: str | None = None
    max_body_size: str | None = None
    read_buffer_size: str | None = None
    placement_host_address: str | None = None
    scheduler_host_address: str | None = None
    enable_app_health_check: bool | None = None
    app_health_check_path: str | None = None
    app_health_probe_interval: int | None = None
    app_health_probe_timeout: int | None = None
    app_health_threshold: int | None = None
    enable_api_logging: bool | None = None
    daprd_log_destination: str | None = None
    app_log_destination: str | None = None
    env: dict[str, _Text] = Field(default_factory=dict[str, str])


class AppEntry(_CommonFields):
    """One app of the template."""

    app_id: str = Field(alias="appID")
    app_dir_path: str
    app_port: int
    dapr_http_port: int = Field(alias="daprHTTPPort")
    dapr_grpc_port: int = Field(alias="daprGRPCPort")
    dapr_internal_grpc_port: int = Field(alias="daprInternalGRPCPort")
    metrics_port: int
    command: list[str] = Field(min_length=1)

    @property
    def ports(self) -> "HostPorts":
        """The ports as written, without an offset."""
        return HostPorts(
            app=self.app_port,
            http=self.dapr_http_port,
            grpc=self.dapr_grpc_port,
            internal=self.dapr_internal_grpc_port,
            metrics=self.metrics_port,
        )


class Template(BaseModel):
    """A multi-app run template, version 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    common: _CommonFields = Field(default_factory=_CommonFields)
    apps: list[AppEntry] = Field(min_length=1)


def read_template(path: Path) -> Template:
    """Read `dapr.yaml` and merge `common` into each app; the app's fields win.

    Raises:
        StackError: the file is absent or invalid; names the invalid field.
    """
    if not path.exists():
        raise StackError(f"{path} is missing: run yocaso in the folder of dapr.yaml, or set --file")
    try:
        template = Template.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise StackError(f"{path} is not a valid multi-app run template:\n{error}") from None
    common = template.common.model_dump(exclude_none=True)
    apps = [_merged(common, app) for app in template.apps]
    return template.model_copy(update={"apps": apps})


def _merged(common: dict[str, Any], app: AppEntry) -> AppEntry:
    own = app.model_dump(exclude_unset=True)
    env = {**common.get("env", {}), **own.get("env", {})}
    merged: dict[str, Any] = {**app.model_dump(), **common, **own, "env": env}
    return app.model_copy(update=merged)


@dataclass(frozen=True, slots=True)
class HostPorts:
    """The ports of one host: the app's, then the sidecar's."""

    app: int
    http: int
    grpc: int
    internal: int
    metrics: int

    def of_replica(self, number: int, plan: PortPlan, app_port: int | None = None) -> "HostPorts":
        """The ports of the n-th host, counted from 1; `app_port` replaces the app's."""
        step = (number - 1) * REPLICA_STEP
        shifted = {name: plan.shifted(port + step) for name, port in asdict(self).items()}
        return HostPorts(**{**shifted, "app": app_port or shifted["app"]})


@dataclass(frozen=True, slots=True)
class AppHost:
    """One host of an app: a process of the app and its sidecar."""

    entry: AppEntry
    ports: HostPorts
    name: str
    app_token: str
    api_token: str
    root: Path
    """The folder of `dapr.yaml`; its paths are relative to it."""

    def app(self, env: Mapping[str, str]) -> ProcessSpec:
        own = {
            **env,
            **self.entry.env,
            "APP_ID": self.entry.app_id,
            "APP_PORT": str(self.ports.app),
            "APP_PROTOCOL": self.entry.app_protocol or "http",
            "DAPR_HTTP_PORT": str(self.ports.http),
            "DAPR_GRPC_PORT": str(self.ports.grpc),
            "DAPR_RUNTIME_HOST": LOOPBACK,
            "APP_API_TOKEN": self.app_token,
            "DAPR_API_TOKEN": self.api_token,
        }
        health = self.entry.app_health_check_path or "/healthz"
        return ProcessSpec(
            name=self.name,
            stage=Stage.APPS,
            argv=tuple(self.entry.command),
            ready=Readiness(self.ports.app, health if self.entry.enable_app_health_check else ""),
            ports={f"app {self.name}": self.ports.app},
            cwd=self.root / self.entry.app_dir_path,
            env=own,
            on_console=self.entry.app_log_destination != "file",
        )

    def sidecar(
        self, daprd: Path, plan: PortPlan, configs: Sequence[Path], env: Mapping[str, str]
    ) -> ProcessSpec:
        kinds = {
            "HTTP": self.ports.http,
            "gRPC": self.ports.grpc,
            "internal gRPC": self.ports.internal,
            "metrics": self.ports.metrics,
        }
        return ProcessSpec(
            name=f"{self.name}-daprd",
            stage=Stage.SIDECARS,
            argv=(str(daprd), *self.arguments(plan, configs)),
            ready=Readiness(self.ports.http, "/v1.0/healthz", {"dapr-api-token": self.api_token}),
            ports={f"{kind} of the sidecar of {self.name}": port for kind, port in kinds.items()},
            cwd=self.root,
            env={
                **SMALL_HEAP,
                **env,
                "APP_API_TOKEN": self.app_token,
                "DAPR_API_TOKEN": self.api_token,
                "DAPR_HOST_IP": LOOPBACK,
            },
            on_console=self.entry.daprd_log_destination in ("console", "fileAndConsole"),
        )

    def arguments(self, plan: PortPlan, configs: Sequence[Path]) -> list[str]:
        entry = self.entry
        pairs: list[tuple[str, Any]] = [
            ("app-id", entry.app_id),
            ("app-port", self.ports.app),
            ("app-protocol", entry.app_protocol or "http"),
            ("app-max-concurrency", entry.app_max_concurrency),
            ("dapr-http-port", self.ports.http),
            ("dapr-grpc-port", self.ports.grpc),
            ("dapr-internal-grpc-port", self.ports.internal),
            ("dapr-internal-grpc-listen-address", LOOPBACK),
            ("dapr-listen-addresses", entry.api_listen_addresses or LOOPBACK),
            ("metrics-port", self.ports.metrics),
            ("metrics-listen-address", LOOPBACK),
            ("placement-host-address", _address(entry.placement_host_address, "placement", plan)),
            ("scheduler-host-address", _address(entry.scheduler_host_address, "scheduler", plan)),
            ("log-level", entry.log_level),
            ("max-body-size", entry.max_body_size),
            ("read-buffer-size", entry.read_buffer_size),
            ("app-health-check-path", entry.app_health_check_path),
            ("app-health-probe-interval", entry.app_health_probe_interval),
            ("app-health-probe-timeout", entry.app_health_probe_timeout),
            ("app-health-threshold", entry.app_health_threshold),
            ("dapr-graceful-shutdown-seconds", GRACEFUL_SECONDS),
            *(("config", config) for config in configs),
        ]
        arguments = [
            word for flag, value in pairs if value is not None for word in (f"--{flag}", str(value))
        ]
        for path in entry.resources_paths or []:
            arguments += ["--resources-path", str(self.root / path)]
        if entry.enable_app_health_check:
            arguments.append("--enable-app-health-check")
        if entry.enable_api_logging:
            arguments.append("--enable-api-logging")
        return arguments


def _address(written: str | None, server: str, plan: PortPlan) -> str:
    """The address in `dapr.yaml`, else the server's own; both with the port offset."""
    if not written:
        return f"{LOOPBACK}:{plan.of(server)}"
    host, _, port = written.rpartition(":")
    return f"{host}:{plan.shifted(int(port))}"
