"""Logs of structlog and the standard library are JSON lines with trace ids and without secrets."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from services.kit.telemetry.logs import configure_logs
from services.kit.telemetry.redaction import Redactor
from tests.requirements import requirement

CANARY = "cAnArY0123456789"
JWT = f"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1In0.{CANARY}"


@pytest.fixture(autouse=True)
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setenv("APP_API_TOKEN", "known-" + CANARY)
    monkeypatch.delenv("YOCASO_LOG_LEVEL", raising=False)
    configure_logs("llm")
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_is_json_with_app_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger().info("turn.completed", turn_id="t1", tokens=40, prompt_tokens=3)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    expected = {"event": "turn.completed", "turn_id": "t1", "tokens": 40, "prompt_tokens": 3}
    assert line == {**expected, "app": "llm", "level": "info"}


def test_standard_library_logs_have_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("uvicorn.error").info("Started on %s", "port")
    (line,) = lines(capsys)
    assert (line["event"], line["logger"], line["level"]) == (
        "Started on port",
        "uvicorn.error",
        "info",
    )


def test_debug_and_access_lines_are_off_by_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    structlog.get_logger().debug("detail")
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("httpx2").info("HTTP Request")
    assert lines(capsys) == []


@requirement("kit:redaction")
@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": f"Bearer {CANARY}"},
        {"Authorization": CANARY},
        {"api_key": CANARY},
        {"apiKey": CANARY},
        {"x-api-key": CANARY},
        {"password": CANARY},
        {"client_secret": [CANARY]},
        {"headers": {"dapr-api-token": CANARY, "Set-Cookie": CANARY}},
        {"headers": [("cookie", CANARY), (b"dapr-api-token", CANARY.encode())]},
        {"deep": {"a": [{"b": {"token": CANARY}}]}},
        {"url": f"postgres://yocaso:{CANARY}@localhost/db"},
        {"url": f"redis://:{CANARY}@localhost"},
        {"url": f"https://{CANARY}@example.com/x"},
        {"text": f"sent Bearer {CANARY} to it"},
        {"text": f"jwt {JWT} end"},
        {"text": f"key sk-or-v1-{CANARY}"},
        {"text": f"key yk_live_{CANARY}"},
        {"text": f"signed by whsec_{CANARY}"},
        {"text": f"GET https://s3.example/b/k?X-Amz-Expires=60&X-Amz-Signature={CANARY}&x=1"},
        {"text": f"password={CANARY} host=x"},
        {"text": f"{{'dapr-api-token': '{CANARY}'}}"},
        {"text": f'{{"api_key": "{CANARY}"}}'},
        {"text": f"cookie: a=1; session={CANARY}"},
        {"text": f"the token of this process is known-{CANARY}, in no known form"},
        {"settings": SecretStr(CANARY)},
        {"body": f"token={CANARY}".encode()},
        {"error": ValueError(f"refused sk-{CANARY}")},
    ],
)
def test_a_secret_is_never_logged(
    capsys: pytest.CaptureFixture[str], fields: dict[str, Any]
) -> None:
    structlog.get_logger().warning("canary", **fields)
    logging.getLogger("some.library").warning("canary %s", fields)
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert CANARY not in out


def test_a_secret_in_the_text_of_an_exception_is_removed_and_the_traceback_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        raise ConnectionError(f"cannot reach postgres://u:{CANARY}@host/db with Bearer {CANARY}")
    except ConnectionError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("failed")
    found = lines(capsys)
    assert len(found) == 2
    for line in found:
        assert "ConnectionError: cannot reach postgres://[redacted]@host/db" in line["exception"]
        assert CANARY not in line["exception"]


@given(
    st.text(alphabet="abc XYZ012 \n'\"{}:/@=,.", max_size=30),
    st.text(alphabet="aZ09+/=._~-", max_size=20),
)
def test_a_bearer_token_is_removed_in_any_context(around: str, rest: str) -> None:
    assert CANARY not in Redactor().text(f"{around} Bearer {CANARY}{rest} {around}")


@given(st.text(alphabet="abcdefgh 0123456789.,:;!?()/-_\n", max_size=200))
def test_a_text_without_secrets_is_unchanged(text: str) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    "piece", ["a", "cookie", "a://", "-eyJ", "token ", "token=", "bearer ", "sk-", "@"]
)
def test_a_huge_text_is_cut_and_searched_in_linear_time(piece: str) -> None:
    assert len(Redactor(["known-secret"]).text(piece * 300_000)) < 200_000


def test_a_self_referencing_structure_terminates() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    assert "again" in Redactor()(None, "", {"loop": loop})["loop"]


def test_an_unknown_level_is_refused_by_variable_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOCASO_LOG_LEVEL", "chatty")
    with pytest.raises(ValueError, match="YOCASO_LOG_LEVEL"):
        configure_logs("llm")
