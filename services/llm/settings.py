"""Settings of the llm app."""

from typing import Final

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.kit.settings import PlatformSettings

OPENROUTER_URL: Final = "https://openrouter.ai/api/v1"
LOCAL_MODEL_URL: Final = "http://127.0.0.1:6090/v1"


class LlmSettings(PlatformSettings):
    """The model, its timeouts (seconds), and retention."""

    model_config = SettingsConfigDict(env_prefix="LLM_", extra="ignore", hide_input_in_errors=True)

    api_key: SecretStr = Field(default=SecretStr(""), validation_alias="OPENROUTER_API_KEY")
    base_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    default_model: str = ""
    models: str = Field(
        default="*", description="Allowed model ids, separated by commas; * allows any."
    )
    connect_timeout: float = Field(default=5, gt=0)
    first_byte_timeout: float = Field(default=60, gt=0)
    between_chunks_timeout: float = Field(default=30, gt=0)
    max_output_tokens: int = Field(default=4096, ge=1, le=32_768)
    kept_seconds: float = Field(
        default=60,
        ge=1,
        description="How long a deleted conversation's terminal events stay readable.",
    )
    events_hours: float = Field(
        default=24, gt=0, description="How long after its end a turn's events stay readable."
    )
    ending_hours: float = Field(
        default=720,
        gt=0,
        description="How long after its end a turn's terminal event stays readable.",
    )

    @model_validator(mode="after")
    def _check_retention(self) -> "LlmSettings":
        if self.ending_hours < self.events_hours:
            raise ValueError("LLM_ENDING_HOURS: must not be less than LLM_EVENTS_HOURS")
        return self

    @model_validator(mode="after")
    def _set_defaults(self) -> "LlmSettings":
        keyed = bool(self.api_key.get_secret_value())
        self.base_url = self.base_url or (OPENROUTER_URL if keyed else LOCAL_MODEL_URL)
        self.default_model = self.default_model or ("openrouter/auto" if keyed else "smollm2")
        return self

    @property
    def allowed_models(self) -> frozenset[str] | None:
        """Allowed model ids; None allows any."""
        names = frozenset(name.strip() for name in self.models.split(",") if name.strip())
        return None if "*" in names else names | {self.default_model}
