"""Settings from environment variables, validated at start; an error names the variable."""

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final, NoReturn, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

TRUSTED_APPS: Final = "YOCASO_TRUSTED_APPS"
"""The variable that names the trusted back ends."""
APP_ID: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,56}[a-z0-9])?")
"""An app-id that Dapr accepts locally and on Kubernetes."""

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


class Environment(StrEnum):
    """Where the platform runs; `production` rejects development-only settings."""

    LOCAL = "local"
    PRODUCTION = "production"


class AppProtocol(StrEnum):
    """Protocol from the sidecar to the app; `h2c` allows more than 1,024 concurrent streams."""

    HTTP = "http"
    H2C = "h2c"


class ActorStateAccess(StrEnum):
    """How actor state is written: by SQL into the table of `state.postgresql`, or through Dapr's state API."""

    POSTGRES = "postgres"
    COMPONENT = "component"


def parse_app_ids(value: str) -> tuple[str, ...]:
    """The app-ids of a comma-separated list, sorted.

    Raises:
        ValueError: one is not an app-id; names it.
    """
    names = {name.strip() for name in value.split(",")} - {""}
    for name in sorted(names):
        if not APP_ID.fullmatch(name):
            raise ValueError(
                f"{name[:64]!r} is not an app-id: up to 58 lower-case letters, digits and inner hyphens"
            )
    return tuple(sorted(names))


def _app_ids(value: str | Sequence[str]) -> tuple[str, ...]:
    return parse_app_ids(value if isinstance(value, str) else ",".join(value))


class PlatformSettings(BaseSettings):
    """Settings that every app has."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    environment: Environment = Field(default=Environment.LOCAL, validation_alias="YOCASO_ENV")
    bind: str = Field(default="127.0.0.1", validation_alias="YOCASO_BIND")
    app_port: int = Field(default=7100, validation_alias="APP_PORT", ge=1, le=65535)
    app_protocol: AppProtocol = Field(default=AppProtocol.HTTP, validation_alias="APP_PROTOCOL")
    app_token: SecretStr = Field(
        validation_alias="APP_API_TOKEN",
        min_length=16,
        description="Token that the app's own sidecar sends with every call; other calls are refused.",
    )
    drain_seconds: float = Field(default=2.0, validation_alias="YOCASO_DRAIN_SECONDS", ge=0)
    database_url: SecretStr = Field(
        default=SecretStr("postgresql://127.0.0.1:6432/yocaso"),
        validation_alias="YOCASO_DATABASE_URL",
    )
    actor_state: ActorStateAccess = Field(
        default=ActorStateAccess.POSTGRES,
        validation_alias="YOCASO_ACTOR_STATE",
        description="`component` where the state store is not `state.postgresql` v2 in the same database.",
    )
    user_rate: int = Field(
        default=1200,
        validation_alias="YOCASO_RATE_USER",
        ge=1,
        description="Calls per user and minute to this app.",
    )
    trusted_apps: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_app_ids)] = Field(
        default=(),
        validation_alias=TRUSTED_APPS,
        description="Comma-separated app-ids of back ends that may call every user-facing method for any user.",
    )
    valkey_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6380/0"), validation_alias="YOCASO_VALKEY_URL"
    )


def load_settings(settings: type[SettingsT]) -> SettingsT:
    """Read settings from the environment; on an invalid value print the variable's name and exit 2."""
    try:
        return settings()
    except ValidationError as error:
        _exit_with_problems(settings, error)


def refuse_setting(variable: str, problem: str) -> NoReturn:
    """Print the problem of a variable's value and exit 2."""
    sys.stderr.write(f"{variable}: {problem}\n")
    raise SystemExit(2)


def _exit_with_problems(settings: type[BaseSettings], error: ValidationError) -> NoReturn:
    prefix = settings.model_config.get("env_prefix", "")
    for problem in error.errors():
        if not problem["loc"]:  # a rule over several fields names its variables itself
            sys.stderr.write(f"{problem['msg'].removeprefix('Value error, ')}\n")
            continue
        name = str(problem["loc"][0])
        field = settings.model_fields.get(name)
        alias = field.validation_alias if field else None
        variable = alias if isinstance(alias, str) else (prefix + name).upper() if field else name
        sys.stderr.write(f"{variable}: {problem['msg']}\n")
    raise SystemExit(2)
