"""What the apps are told: addresses, secrets and the model; and the same for a shell before `dapr run`."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.cli.stack import postgres
from services.cli.stack.ports import LOOPBACK, PortPlan
from services.cli.stack.state import StateFolder, write_private
from services.contracts.apps import APPS, app_of
from services.kit.manifest import Secret, Variable

MODEL: Final = "model"
"""The server that is started only where there is no key for a better one."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables of one started stack."""

    state: StateFolder
    ports: PortPlan
    secrets: dict[str, str]
    with_model: bool

    @classmethod
    def prepare(
        cls, state: StateFolder, ports: PortPlan, app_ids: Iterable[str], *, with_model: bool
    ) -> "Environment":
        """Make the secrets that are new, and write the file that Dapr's secret store reads."""
        values = state.load_secrets()
        password = state.secret(values, "postgresPassword")
        state.secret(values, "valkeyPassword")
        for variable in _variables().values():
            if isinstance(variable, Secret):
                state.secret(values, variable.name)
        for name in ("common", *app_ids):
            state.secret(values, f"{name}AppToken")
            state.secret(values, f"{name}ApiToken")
        values["postgresUrl"] = postgres.url(ports.of("postgres"), password)
        values["postgresConnectionString"] = postgres.store_url(ports.of("postgres"), password)
        values["valkeyHost"] = f"{LOOPBACK}:{ports.of('valkey')}"
        state.save_secrets(values)
        return cls(state, ports, values, with_model)

    @property
    def database_url(self) -> str:
        """How an app reaches Postgres."""
        return self.secrets["postgresUrl"]

    @property
    def valkey_url(self) -> str:
        """How an app reaches Valkey."""
        return f"redis://:{self.secrets['valkeyPassword']}@{self.secrets['valkeyHost']}/0"

    def for_sidecar(self) -> dict[str, str]:
        """What every sidecar is told."""
        return {"YOCASO_SECRETS_FILE": str(self.state.secrets_file)}

    def for_app(self, app_id: str) -> dict[str, str]:
        """What an app is told."""
        return {**self._for_all(), **self._own(app_of(app_id).variables)}

    def write_file(self) -> None:
        """`env`: what `dapr run` and its apps need; one pair of tokens, as the template has no more."""
        values = {
            **self._for_all(),
            **self._own(_variables()),
            **self.for_sidecar(),
            "APP_API_TOKEN": self.secrets["commonAppToken"],
            "DAPR_API_TOKEN": self.secrets["commonApiToken"],
            "DAPR_HOST_IP": LOOPBACK,
            "PATH": self._path("$PATH"),
        }
        lines = [f'export {key}="{value}"\n' for key, value in values.items()]
        write_private(self.state.env_file, "".join(lines))

    def _for_all(self) -> dict[str, str]:
        return {
            "PATH": self._path(os.environ.get("PATH", os.defpath)),
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "2",  # an arena per thread would keep what each once needed
            "YOCASO_ENV": "local",
            "YOCASO_DATABASE_URL": self.database_url,
            "YOCASO_VALKEY_URL": self.valkey_url,
        }

    def _own(self, variables: Mapping[str, Variable]) -> dict[str, str]:
        """What an app's manifest asks for, as far as its servers were started."""
        values = {name: self._value(name, variable) for name, variable in variables.items()}
        return {name: value for name, value in values.items() if value is not None}

    def _value(self, name: str, variable: Variable) -> str | None:
        if isinstance(variable, Secret):
            return self.secrets[variable.name]
        if variable.name == MODEL and not self.with_model:
            return None
        if variable.replaceable and name in os.environ:
            return os.environ[name]
        return variable.value.format(url=f"http://{LOOPBACK}:{self.ports.of(variable.name)}")

    def _path(self, rest: str) -> str:
        return os.pathsep.join([str(Path(sys.executable).parent), str(self.state.bin), rest])


def _variables() -> dict[str, Variable]:
    """Those of all apps."""
    return {name: variable for app in APPS for name, variable in app.variables.items()}
