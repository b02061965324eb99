"""Errors in settings name the variable."""

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.kit.settings import Environment, PlatformSettings, load_settings
from tests.requirements import requirement


class Sample(PlatformSettings):
    model_config = SettingsConfigDict(
        env_prefix="SAMPLE_", extra="ignore", hide_input_in_errors=True
    )

    limit: int = Field(default=1, ge=1)


@requirement("kit:settings")
@pytest.mark.parametrize(
    ("variable", "value"),
    [("SAMPLE_LIMIT", "none"), ("APP_PORT", "0"), ("APP_API_TOKEN", ""), ("APP_API_TOKEN", "x")],
)
def test_an_invalid_value_is_refused_by_variable_name(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as stopped:
        load_settings(Sample)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"{variable}: ")


@requirement("kit:settings")
def test_a_secret_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_API_TOKEN", "canary-canary-canary")
    settings = load_settings(Sample)
    assert "canary" not in repr(settings)
    assert settings.app_token.get_secret_value() == "canary-canary-canary"


@requirement("kit:app-token")
def test_an_app_does_not_start_without_a_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("APP_API_TOKEN")
    with pytest.raises(SystemExit):
        load_settings(Sample)
    assert capsys.readouterr().err.startswith("APP_API_TOKEN: ")


def test_defaults_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOCASO_ENV", raising=False)
    assert load_settings(Sample).environment is Environment.LOCAL
