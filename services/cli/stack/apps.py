"""`dapr.yaml` read as the `dapr` command reads it, and turned into the processes of each app and its sidecar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from services.cli.stack.errors import StackError
from services.cli.stack.ports import LOOPBACK, PortPlan
from services.cli.stack.process import SMALL_HEAP, ProcessSpec, Readiness, Stage

REPLICA_STEP: Final = 100
"""How far the ports of an app's further hosts are apart."""
GRACEFUL_SECONDS: Final = 2
"""A sidecar stops after its app, so it has little to wait for."""

_Text = Annotated[
    str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)
]


class _Shared(BaseModel):
    """What `common` and an app may both say; the app wins."""

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


class AppEntry(_Shared):
    """One app of the template."""

    app_id: str = Field(alias="appID")
    app_dir_path: str
    app_port: int
    dapr_http_port: int = Field(alias="daprHTTPPort")
    dapr_grpc_port: int = Field(alias="daprGRPCPort")
    dapr_internal_grpc_port: int = Field(alias="daprInternalGRPCPort")
    metrics_port: int
    command: list[str] = Field(min_length=1)


class Template(BaseModel):
    """A multi-app run template, version 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    common: _Shared = Field(default_factory=_Shared)
    apps: list[AppEntry] = Field(min_length=1)


def read_template(path: Path) -> Template:
    """Read `dapr.yaml`; each app has what `common` says unless it says otherwise.

    Raises:
        StackError: the file is absent or not a template, with the field that is wrong.
    """
    if not path.exists():
        raise StackError(f"{path} is missing: run this where dapr.yaml is, or name it by --file")
    try:
        template = Template.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise StackError(f"{path} is not a multi-app run template:\n{error}") from None
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
    """The five ports of one host of an app, after shifting."""

    app: int
    http: int
    grpc: int
    internal: int
    metrics: int

    @classmethod
    def of(cls, entry: AppEntry, plan: PortPlan, replica: int, app_port: int | None) -> "HostPorts":
        """The ports of the n-th host, counted from 1."""
        step = (replica - 1) * REPLICA_STEP
        return cls(
            app=app_port or plan.shifted(entry.app_port + step),
            http=plan.shifted(entry.dapr_http_port + step),
            grpc=plan.shifted(entry.dapr_grpc_port + step),
            internal=plan.shifted(entry.dapr_internal_grpc_port + step),
            metrics=plan.shifted(entry.metrics_port + step),
        )


@dataclass(frozen=True, slots=True)
class AppHost:
    """One host of an app: the app's process and its sidecar's."""

    entry: AppEntry
    ports: HostPorts
    name: str
    app_token: str
    api_token: str
    root: Path
    """The folder of `dapr.yaml`, where its relative paths begin."""

    def app(self, env: Mapping[str, str]) -> ProcessSpec:
        """The app's process."""
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
        """The sidecar's process."""
        kinds = {
            "HTTP": self.ports.http,
            "gRPC": self.ports.grpc,
            "internal gRPC": self.ports.internal,
        }
        return ProcessSpec(
            name=f"{self.name}-daprd",
            stage=Stage.SIDECARS,
            argv=(str(daprd), *self.arguments(plan, configs)),
            ready=Readiness(self.ports.http, "/v1.0/healthz", {"dapr-api-token": self.api_token}),
            ports={
                **{f"{kind} of the sidecar of {self.name}": port for kind, port in kinds.items()},
                f"metrics of the sidecar of {self.name}": self.ports.metrics,
            },
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
        """The arguments of daprd."""
        entry = self.entry
        placement = entry.placement_host_address or f"{LOOPBACK}:{plan.of('placement')}"
        scheduler = entry.scheduler_host_address or f"{LOOPBACK}:{plan.of('scheduler')}"
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
            (
                "placement-host-address",
                _shifted_address(placement, plan, entry.placement_host_address),
            ),
            (
                "scheduler-host-address",
                _shifted_address(scheduler, plan, entry.scheduler_host_address),
            ),
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


def _shifted_address(address: str, plan: PortPlan, written: str | None) -> str:
    """An address of `dapr.yaml` moves with the ports; a computed one has moved already."""
    if written is None:
        return address
    host, _, port = address.rpartition(":")
    return f"{host}:{plan.shifted(int(port))}"
