"""Environment of apps and sidecars, and the `env` file for a shell that runs `dapr run`."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.cli.stack import postgres
from services.cli.stack.ports import LOOPBACK, PortPlan
from services.cli.stack.state import StateFolder, write_private
from services.contracts.apps import APPS, app_of
from services.kit.manifest import OBJECTS, Secret, Variable
from services.kit.settings import TRUSTED_APPS

MODEL: Final = "model"
"""Name of the optional local model server in `INFRA_PORTS` and manifests."""
COMMON: Final = "common"
"""Owner of the token pair that all apps share under `dapr run`, which starts every sidecar with its own environment; an
app's `env` in the template reaches only the app and is literal text."""
BUCKET: Final = "yocaso"
"""The bucket of the local object store."""


def app_token_name(app_id: str) -> str:
    """Name of the secret that a sidecar sends to its app."""
    return f"{app_id}AppToken"


def api_token_name(app_id: str) -> str:
    """Name of the secret that callers send to a sidecar."""
    return f"{app_id}ApiToken"


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment variables of one stack."""

    state: StateFolder
    ports: PortPlan
    secrets: dict[str, str]
    with_model: bool
    trusted_apps: Sequence[str] = ()
    with_objects: bool = False

    @classmethod
    def prepare(
        cls,
        state: StateFolder,
        ports: PortPlan,
        app_ids: Sequence[str],
        *,
        with_model: bool,
        trusted_apps: Sequence[str] = (),
    ) -> "Environment":
        """Generate missing secrets and write the file that Dapr's secret store reads."""
        values = state.load_secrets()
        password = state.secret(values, "postgresPassword")
        state.secret(values, "valkeyPassword")
        for variable in _variables().values():
            if isinstance(variable, Secret):
                state.secret(values, variable.name)
        with_objects = any(OBJECTS in app_of(app_id).components for app_id in app_ids)
        if with_objects:
            state.secret(values, "objectsKeyId")
            state.secret(values, "objectsSecret")
        for app_id in (COMMON, *app_ids):
            state.secret(values, app_token_name(app_id))
            state.secret(values, api_token_name(app_id))
        values["postgresUrl"] = postgres.url(ports.of("postgres"), password)
        values["postgresConnectionString"] = postgres.store_url(ports.of("postgres"), password)
        values["valkeyHost"] = f"{LOOPBACK}:{ports.of('valkey')}"
        state.save_secrets(values)
        return cls(state, ports, values, with_model, trusted_apps, with_objects)

    @property
    def database_url(self) -> str:
        """The Postgres URL for apps."""
        return self.secrets["postgresUrl"]

    @property
    def valkey_url(self) -> str:
        return f"redis://:{self.secrets['valkeyPassword']}@{self.secrets['valkeyHost']}/0"

    def for_sidecar(self) -> dict[str, str]:
        return {"YOCASO_SECRETS_FILE": str(self.state.secrets_file), **_span_export()}

    def for_app(self, app_id: str) -> dict[str, str]:
        """Variables of an app: the shared ones, those of its manifest, and of the object store if it uses that."""
        app = app_of(app_id)
        objects = self._objects() if OBJECTS in app.components else {}
        return {**self._shared(), **self._resolve(app.variables), **objects}

    def write_file(self) -> None:
        """Write `env`: the variables of all apps and sidecars, as shell exports."""
        values = {
            **self._shared(),
            **self._resolve(_variables()),
            **(self._objects() if self.with_objects else {}),
            **self.for_sidecar(),
            "APP_API_TOKEN": self.secrets[app_token_name(COMMON)],
            "DAPR_API_TOKEN": self.secrets[api_token_name(COMMON)],
            "DAPR_HOST_IP": LOOPBACK,
            "DAPR_RUNTIME_PATH": str(self.state.path),
        }
        escaped = {key: _escaped(value) for key, value in values.items()}
        escaped["PATH"] = _escaped(self._path("")) + "$PATH"
        lines = [f'export {key}="{value}"\n' for key, value in escaped.items()]
        write_private(self.state.env_file, "".join(lines))

    def _shared(self) -> dict[str, str]:
        return {
            "PATH": self._path(os.environ.get("PATH", os.defpath)),
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "2",  # glibc keeps freed memory in each thread's arena
            "YOCASO_ENV": "local",
            "YOCASO_DATABASE_URL": self.database_url,
            "YOCASO_VALKEY_URL": self.valkey_url,
            TRUSTED_APPS: ",".join(self.trusted_apps),
        }

    def _objects(self) -> dict[str, str]:
        return {
            "YOCASO_OBJECTS_URL": f"http://{LOOPBACK}:{self.ports.of('versitygw')}",
            "YOCASO_OBJECTS_BUCKET": BUCKET,
            "YOCASO_OBJECTS_KEY_ID": self.secrets["objectsKeyId"],
            "YOCASO_OBJECTS_SECRET": self.secrets["objectsSecret"],
        }

    def _resolve(self, variables: Mapping[str, Variable]) -> dict[str, str]:
        """Values of manifest variables, without those of a server that is not started."""
        values = {name: self._value(name, variable) for name, variable in variables.items()}
        return {name: value for name, value in values.items() if value is not None}

    def _value(self, name: str, variable: Variable) -> str | None:
        if isinstance(variable, Secret):
            return self.secrets[variable.name]
        if variable.name == MODEL and not self.with_model:
            return os.environ.get(name)  # of another model; the `env` file carries it to `dapr run`
        if variable.overridable and name in os.environ:
            return os.environ[name]
        return variable.value.format(url=f"http://{LOOPBACK}:{self.ports.of(variable.name)}")

    def _path(self, rest: str) -> str:
        return os.pathsep.join([str(Path(sys.executable).parent), str(self.state.bin), rest])


def _escaped(text: str) -> str:
    """Text as a shell writes it in double quotes."""
    return re.sub(r'[\\"$`]', r"\\\g<0>", text)


def _variables() -> dict[str, Variable]:
    return {name: variable for app in APPS for name, variable in app.variables.items()}


def _span_export() -> dict[str, str]:
    """The OTLP protocol of the apps, which export by HTTP: daprd's own default is gRPC with TLS."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return {}
    insecure = str(endpoint.startswith("http://")).lower()
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_INSECURE": insecure,
    }
