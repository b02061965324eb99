"""Reads a multi-app run template by the rules of `dapr run -f` (dapr/cli, `pkg/runfileconfig`) or stricter ones."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic.alias_generators import to_camel

from services.cli.stack.errors import StackError
from services.cli.stack.ports import HostPorts

UNSUPPORTED: Final = {
    "appChannelAddress": "apps listen on 127.0.0.1",
    "appSSL": "it is deprecated, set appProtocol to https or grpcs",
    "enableProfiling": "yocaso reserves no port for it",
    "profilePort": "yocaso reserves no port for it",
    "runtimePath": "yocaso finds or builds daprd, and sets DAPR_RUNTIME_PATH for `dapr run`",
    "unixDomainSocket": "sidecars listen on ports",
}
"""Fields that `dapr run` accepts and this reader refuses, with the reason."""


def _text(value: Any) -> Any:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_whole else value


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if value and not (host and port.isdigit()):
        raise ValueError('must be HOST:PORT, or "" for none')
    return value


Text = Annotated[str, BeforeValidator(_text)]
"""Text or a whole number; other values are written differently by Go and Python and must be quoted."""
Address = Annotated[str, AfterValidator(_address)]
Destination = Literal["console", "file", "fileAndConsole"]


class _Fields(BaseModel):
    """A section of the template; unknown fields, which `dapr run` ignores, are refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, fields: Any) -> Any:
        for name, reason in UNSUPPORTED.items():
            if isinstance(fields, dict) and name in fields:
                raise ValueError(f"{name} is not supported: {reason}")
        return cast("Any", fields)


class SharedFields(_Fields):
    """Fields of `common` and of an app."""

    resources_paths: list[Text] | None = None
    resources_path: Text | None = None
    config_file_path: Text | None = None
    app_protocol: Text | None = None
    app_max_concurrency: int | None = None
    api_listen_addresses: Text | None = None
    log_level: Text | None = None
    max_body_size: Text | None = None
    read_buffer_size: Text | None = None
    placement_host_address: Address | None = None
    scheduler_host_address: Address | None = None
    enable_app_health_check: bool | None = None
    app_health_check_path: Text | None = None
    app_health_probe_interval: int | None = None
    app_health_probe_timeout: int | None = None
    app_health_threshold: int | None = None
    enable_api_logging: bool | None = None
    daprd_log_destination: Destination | None = None
    app_log_destination: Destination | None = None
    env: dict[Text, Text] = Field(default_factory=dict[str, str])


class AppEntry(SharedFields):
    """One app: its own fields and those of `common`; paths are absolute. Ports and the command are required."""

    app_id: Text = Field(default="", alias="appID")
    app_dir_path: Text = Field(min_length=1)
    app_port: int
    dapr_http_port: int = Field(alias="daprHTTPPort")
    dapr_grpc_port: int = Field(alias="daprGRPCPort")
    dapr_internal_grpc_port: int = Field(alias="daprInternalGRPCPort")
    metrics_port: int
    command: list[Text] = Field(min_length=1)
    container_image: Text | None = None
    container_image_pull_policy: Literal["Always", "Never", "IfNotPresent"] | None = None
    create_service: bool | None = None

    @property
    def ports(self) -> HostPorts:
        """The ports as written, without an offset."""
        return HostPorts(
            app=self.app_port,
            http=self.dapr_http_port,
            grpc=self.dapr_grpc_port,
            internal=self.dapr_internal_grpc_port,
            metrics=self.metrics_port,
        )

    @property
    def folder(self) -> Path:
        """The working directory of the app and of its sidecar."""
        return Path(self.app_dir_path)


_Section = TypeVar("_Section", bound=SharedFields)


class Template(_Fields):
    """A multi-app run template."""

    version: int = Field(gt=0)
    name: Text = ""
    common: SharedFields = Field(default_factory=SharedFields)
    apps: list[AppEntry] = Field(min_length=1)


def read_template(path: Path) -> Template:
    """Read `dapr.yaml`, make paths absolute and merge `common` into each app.

    Paths in `common` are relative to the file, an app's to its `appDirPath`, and each must exist.

    Raises:
        StackError: the file is absent or invalid; names the invalid field.
    """
    if not path.is_file():
        raise StackError(f"{path} is missing: run yocaso in the folder of dapr.yaml, or set --file")
    try:
        template = Template.model_validate(yaml.safe_load(path.read_text()))
        base = path.absolute().parent
        common = _located(template.common, base, "common")
        apps = [_app(common, app, base, f"apps.{at}") for at, app in enumerate(template.apps)]
        _require_unique_ids(apps)
    except (ValueError, yaml.YAMLError) as error:
        raise StackError(f"{path} is not a valid multi-app run template:\n{error}") from None
    return template.model_copy(update={"common": common, "apps": apps})


def _app(common: SharedFields, app: AppEntry, base: Path, where: str) -> AppEntry:
    folder = _existing(base, app.app_dir_path, f"{where}.appDirPath")
    own = _located(app, Path(folder), where)
    found = {"app_dir_path": folder, "app_id": own.app_id or Path(folder).name}
    return _merged(common, own.model_copy(update=found | _of_dapr_folder(own, Path(folder))))


def _of_dapr_folder(app: AppEntry, folder: Path) -> dict[str, Any]:
    """What `.dapr` in the app's folder sets: it comes before `common`, after the app's own fields."""
    resources, config = folder / ".dapr" / "resources", folder / ".dapr" / "config.yaml"
    found: dict[str, Any] = {}
    if not app.resources_paths and resources.exists():
        found["resources_paths"] = [str(resources)]
    if not app.config_file_path and config.exists():
        found["config_file_path"] = str(config)
    return found


def _merged(common: SharedFields, app: AppEntry) -> AppEntry:
    """The app's fields win, but an empty one (0, false, "") counts as absent, except an address."""
    update = {
        name: value
        for name, value in common.model_dump(exclude_none=True).items()
        if getattr(app, name) is None or not (name.endswith("host_address") or getattr(app, name))
    }
    return app.model_copy(update=update | {"env": {**common.env, **app.env}})


def _located(fields: _Section, base: Path, where: str) -> _Section:
    """The same fields with absolute paths, the deprecated `resourcesPath` added to `resourcesPaths`."""
    resources = [
        _existing(base, path, f"{where}.{name}") for name, path in _resources(fields) if path
    ]
    config = fields.config_file_path
    update = {
        "resources_path": None,
        "resources_paths": resources or None,
        "config_file_path": config and _existing(base, config, f"{where}.configFilePath"),
    }
    return fields.model_copy(update=update)


def _resources(fields: SharedFields) -> Iterator[tuple[str, str]]:
    for at, path in enumerate(fields.resources_paths or []):
        yield f"resourcesPaths.{at}", path
    yield "resourcesPath", fields.resources_path or ""


def _existing(base: Path, path: str, where: str) -> str:
    expanded = Path(path).expanduser() if path.startswith("~/") else Path(path)
    absolute = os.path.normpath(base / expanded)
    if not os.path.exists(absolute):
        raise ValueError(f"{where}: {absolute} does not exist")
    return absolute


def _require_unique_ids(apps: list[AppEntry]) -> None:
    seen = set[str]()
    for at, app in enumerate(apps):
        if app.app_id in seen:
            raise ValueError(f"apps.{at}.appID: {app.app_id} is used twice")
        seen.add(app.app_id)
