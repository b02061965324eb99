"""Configuration from the environment, checked at start with a message that names the variable."""

import sys
from enum import StrEnum
from typing import NoReturn, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


class Environment(StrEnum):
    """Where the platform runs; `production` refuses what is meant for a laptop."""

    LOCAL = "local"
    PRODUCTION = "production"


class AppProtocol(StrEnum):
    """What the sidecar speaks to its app; `h2c` carries more than 1,024 streams at once."""

    HTTP = "http"
    H2C = "h2c"


class ActorStateWay(StrEnum):
    """How actors' rows are written: by SQL into the table of `state.postgresql`, or by the component itself."""

    POSTGRES = "postgres"
    COMPONENT = "component"


class PlatformSettings(BaseSettings):
    """What every app is told by its surroundings."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    environment: Environment = Field(default=Environment.LOCAL, validation_alias="YOCASO_ENV")
    bind: str = Field(default="127.0.0.1", validation_alias="YOCASO_BIND")
    app_port: int = Field(default=7100, validation_alias="APP_PORT", ge=1, le=65535)
    app_protocol: AppProtocol = Field(default=AppProtocol.HTTP, validation_alias="APP_PROTOCOL")
    app_token: SecretStr = Field(
        validation_alias="APP_API_TOKEN",
        min_length=16,
        description="What the app's own sidecar shows with every call; nobody else is served.",
    )
    drain_seconds: float = Field(default=2.0, validation_alias="YOCASO_DRAIN_SECONDS", ge=0)
    database_url: SecretStr = Field(
        default=SecretStr("postgresql://127.0.0.1:6432/yocaso"),
        validation_alias="YOCASO_DATABASE_URL",
    )
    actor_state: ActorStateWay = Field(
        default=ActorStateWay.POSTGRES,
        validation_alias="YOCASO_ACTOR_STATE",
        description="`component` where the state store is not `state.postgresql` v2 in the same database.",
    )
    user_rate: int = Field(
        default=1200,
        validation_alias="YOCASO_RATE_USER",
        ge=1,
        description="Calls of one user to this app in any minute.",
    )
    valkey_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6380/0"), validation_alias="YOCASO_VALKEY_URL"
    )


def load_settings(settings: type[SettingsT]) -> SettingsT:
    """Read settings from the environment; on a bad value print which variable is wrong, and exit 2."""
    try:
        return settings()
    except ValidationError as error:
        _refuse(settings, error)


def _refuse(settings: type[BaseSettings], error: ValidationError) -> NoReturn:
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
