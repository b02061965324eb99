"""Settings from environment variables, validated at start; an error names the variable."""

import sys
from enum import StrEnum
from typing import NoReturn, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

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
    valkey_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6380/0"), validation_alias="YOCASO_VALKEY_URL"
    )


def load_settings(settings: type[SettingsT]) -> SettingsT:
    """Read settings from the environment; on an invalid value print the variable's name and exit 2."""
    try:
        return settings()
    except ValidationError as error:
        _exit_with_problems(settings, error)


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
