"""Settings of the object store: an S3 service, or Amazon's own with the credentials of its environment."""

from typing import Annotated, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Origin = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+$")]
"""Scheme, host and port of a URL."""


class ObjectStoreSettings(BaseSettings):
    """Settings of an app that uses the object store."""

    model_config = SettingsConfigDict(
        env_prefix="YOCASO_OBJECTS_", extra="ignore", hide_input_in_errors=True
    )

    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    url: Origin | None = Field(default=None, description="The S3 service; Amazon S3 if absent.")
    public_url: Origin | None = Field(
        default=None,
        description="The same service as clients reach it, if by another address; presigned URLs carry it.",
    )
    region: str = "us-east-1"
    key_id: SecretStr | None = Field(default=None, min_length=1)
    secret: SecretStr | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _require_both_or_none(self) -> Self:
        if (self.key_id is None) != (self.secret is None):
            raise ValueError("YOCASO_OBJECTS_KEY_ID and YOCASO_OBJECTS_SECRET: set both or none")
        return self
