"""Derives the processes of each app of `dapr.yaml` and of its sidecar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.cli.stack.ports import LOOPBACK, HostPorts, PortPlan
from services.cli.stack.process import SMALL_HEAP, ProcessSpec, Readiness, Stage
from services.cli.stack.template import AppEntry

GRACEFUL_SECONDS: Final = 2
"""Seconds; short, because a sidecar stops after its app and has no calls left."""


@dataclass(frozen=True, slots=True)
class AppHost:
    """One host of an app: a process of the app and its sidecar."""

    entry: AppEntry
    ports: HostPorts
    name: str
    app_token: str
    api_token: str

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
            cwd=self.entry.folder,
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
            cwd=self.entry.folder,
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
            arguments += ["--resources-path", path]
        if entry.enable_app_health_check:
            arguments.append("--enable-app-health-check")
        if entry.enable_api_logging:
            arguments.append("--enable-api-logging")
        return arguments


def _address(written: str | None, server: str, plan: PortPlan) -> str | None:
    """The address in `dapr.yaml`, else the server's own, both with the port offset; None if written as ""."""
    if written is None:
        return f"{LOOPBACK}:{plan.of(server)}"
    host, _, port = written.rpartition(":")
    return f"{host}:{plan.shifted(int(port))}" if written else None
