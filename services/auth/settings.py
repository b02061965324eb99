"""Settings of the auth app."""

import json
from pathlib import Path
from typing import Any, Final, Self, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.kit.settings import Environment, PlatformSettings

MIN_SECRET_LENGTH: Final = 32
SERVICE_ACCOUNT: Final = ("type", "project_id", "private_key", "client_email", "token_uri")


class AuthSettings(PlatformSettings):
    """Settings of tokens, signing keys, the audit log and OpenFGA."""

    model_config = SettingsConfigDict(env_prefix="AUTH_", extra="ignore", hide_input_in_errors=True)

    issuer: str = Field(default="yocaso", min_length=1)
    audience: str = Field(default="yocaso", min_length=1)
    key_secret: SecretStr = SecretStr("")
    key_max_age_days: int = Field(default=90, ge=1, le=3650)
    access_token_seconds: int = Field(default=600, ge=60, le=3600)
    audit_days: int = Field(default=400, ge=1, le=3650)

    openfga_url: str = Field(default="http://127.0.0.1:6070", pattern=r"^https?://[^\s/]+/?$")
    openfga_token: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _require_secret(self) -> Self:
        for name, secret in (
            ("KEY_SECRET", self.key_secret),
            ("OPENFGA_TOKEN", self.openfga_token),
        ):
            if len(secret.get_secret_value()) < MIN_SECRET_LENGTH:
                raise ValueError(
                    f"AUTH_{name} must have at least {MIN_SECRET_LENGTH} characters; `yocaso up` makes one"
                )
        return self


class FirebaseSettings(PlatformSettings):
    """Sign-in by Firebase: off without a project.

    Without credentials revoked sign-ins are not detected, and there are no custom tokens and session cookies.
    """

    model_config = SettingsConfigDict(
        env_prefix="AUTH_FIREBASE_", extra="ignore", hide_input_in_errors=True
    )

    project_id: str = Field(default="", pattern=r"^([a-z][a-z0-9-]{4,29})?$")
    credentials: SecretStr = SecretStr("")
    certs_url: str = Field(
        default="https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com",
        pattern=r"^https?://\S+$",
    )
    cookie_certs_url: str = Field(
        default="https://www.googleapis.com/identitytoolkit/v3/relyingparty/publicKeys",
        pattern=r"^https?://\S+$",
    )
    api_url: str = Field(
        default="https://identitytoolkit.googleapis.com/v1", pattern=r"^https?://\S+[^/\s]$"
    )
    clock_skew_seconds: int = Field(default=10, ge=0, le=60)
    revocation_seconds: int = Field(default=30, ge=5, le=3600)
    allow_emulator: bool = False
    emulator_host: str = Field(
        default="",
        validation_alias="FIREBASE_AUTH_EMULATOR_HOST",
        pattern=r"^([a-z0-9.-]+:\d{1,5})?$",
    )

    def service_account(self) -> dict[str, Any] | None:
        """The service account: JSON, or the path of its file."""
        given = self.credentials.get_secret_value().strip()
        return _service_account(given) if given else None

    @field_validator("credentials")
    @classmethod
    def _require_readable(cls, value: SecretStr) -> SecretStr:
        if given := value.get_secret_value().strip():
            _service_account(given)
        return value

    @model_validator(mode="after")
    def _refuse_emulator(self) -> Self:
        if self.emulator_host and self.environment is Environment.PRODUCTION:
            raise ValueError(
                "FIREBASE_AUTH_EMULATOR_HOST: the emulator's tokens are unsigned, so they are refused in production"
            )
        if self.emulator_host and not self.allow_emulator:
            raise ValueError(
                "FIREBASE_AUTH_EMULATOR_HOST needs AUTH_FIREBASE_ALLOW_EMULATOR=true: its tokens are unsigned"
            )
        return self

    @model_validator(mode="after")
    def _require_one_project(self) -> Self:
        account = self.service_account()
        if account is not None and account["project_id"] != self.project_id:
            raise ValueError(
                "AUTH_FIREBASE_CREDENTIALS must be of the project AUTH_FIREBASE_PROJECT_ID"
            )
        return self


def _service_account(given: str) -> dict[str, Any]:
    try:
        account: Any = json.loads(given if given.startswith("{") else Path(given).read_text())
    except (OSError, ValueError):
        raise ValueError("must be a service account as JSON, or the path of its file") from None
    if not isinstance(account, dict) or not all(
        isinstance(account.get(name), str) for name in SERVICE_ACCOUNT
    ):
        raise ValueError(f"must have {', '.join(SERVICE_ACCOUNT)}")
    if account["type"] != "service_account":
        raise ValueError("must be of a service account")
    try:
        load_pem_private_key(cast(str, account["private_key"]).encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("must have a private_key in PEM") from None
    return cast(dict[str, Any], account)
