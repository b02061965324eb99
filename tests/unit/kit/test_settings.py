"""Errors in settings name the variable."""

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.kit.settings import (
    TRUSTED_APPS,
    Environment,
    PlatformSettings,
    load_settings,
)
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


@requirement("access:trusted-apps", "kit:settings")
@pytest.mark.parametrize(
    ("value", "app_ids"),
    [
        ("", ()),
        (" , ", ()),
        ("backend", ("backend",)),
        ("web-2, backend,backend", ("backend", "web-2")),
        ("a" * 58, ("a" * 58,)),
    ],
)
def test_trusted_apps_are_a_list_of_app_ids(
    value: str, app_ids: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED_APPS, value)
    assert load_settings(Sample).trusted_apps == app_ids


@requirement("access:trusted-apps", "kit:settings")
@pytest.mark.parametrize(
    "value", ["*", "Backend", "back end", "-x", "x-", "a.b", "a" * 59, "backend;other", "ä", "a\nb"]
)
def test_a_name_that_is_no_app_id_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TRUSTED_APPS, f"fine,{value}")
    with pytest.raises(SystemExit) as stopped:
        load_settings(Sample)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"{TRUSTED_APPS}: ")
    assert f"{value[:64]!r} is not an app-id" in printed


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
