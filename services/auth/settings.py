"""Settings of the auth app."""

from typing import Final, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.kit.settings import PlatformSettings

MIN_SECRET_LENGTH: Final = 32


class AuthSettings(PlatformSettings):
    """Who issues tokens to whom, and how keys are kept."""

    model_config = SettingsConfigDict(env_prefix="AUTH_", extra="ignore", hide_input_in_errors=True)

    issuer: str = Field(default="yocaso", min_length=1)
    audience: str = Field(default="yocaso", min_length=1)
    key_secret: SecretStr = SecretStr("")
    key_max_age_days: int = Field(default=90, ge=1, le=3650)

    @model_validator(mode="after")
    def _require_secret(self) -> Self:
        if len(self.key_secret.get_secret_value()) < MIN_SECRET_LENGTH:
            raise ValueError(
                f"AUTH_KEY_SECRET must have at least {MIN_SECRET_LENGTH} characters; `yocaso up` makes one"
            )
        return self
