"""Output and input bindings on a real sidecar."""

import asyncio
from pathlib import Path

import pytest

from services.kit.dapr.bindings import MAX_MESSAGE_BYTES
from tests.component.bindings.conftest import MAIL_PORT, Mailer
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.wait import wait_until

pytestmark = pytest.mark.timeout(90)


@requirement("kit:bindings:output")
async def test_the_mail_of_the_readme_arrives_once(mailer: Mailer) -> None:
    assert await mailer.call("/welcome", {"address": "ada@example.com"}) == (200, {})
    [(recipients, message)] = mailer.mailbox.messages
    assert recipients == ["ada@example.com"]
    assert (message["From"], message["Subject"]) == ("yocaso@example.com", "Welcome")
    assert message.get_payload(decode=True) == b"Welcome!\r\n"


@requirement("kit:bindings:output")
async def test_concurrent_mails_reach_their_own_recipients(mailer: Mailer) -> None:
    names = [f"user{number}@example.com" for number in range(40)]
    answers = await asyncio.gather(
        *(mailer.send(metadata={"emailTo": name, "subject": name}) for name in names)
    )
    assert set(answers) == {"OK"}
    sent = [(recipients, message["Subject"]) for recipients, message in mailer.mailbox.messages]
    assert sorted(sent) == sorted(([name], name) for name in names)


@requirement("kit:bindings:output")
async def test_a_refusal_is_an_upstream_error_and_nothing_is_repeated(mailer: Mailer) -> None:
    mailer.mailbox.answer = "550 no such user, says a secret server"
    status, answer = await mailer.call("/welcome", {"address": "nobody@example.com"})
    assert (status, answer["error"]["code"]) == (502, "UPSTREAM_ERROR")
    assert "secret" not in str(answer)
    assert (mailer.mailbox.tries, mailer.mailbox.messages) == (1, [])


@requirement("kit:bindings:output")
async def test_a_dead_server_is_an_upstream_error_until_it_is_back(mailer: Mailer) -> None:
    await mailer.mailbox.close()
    assert await mailer.send() == "UPSTREAM_ERROR"
    await mailer.mailbox.open(MAIL_PORT)
    assert await mailer.send() == "OK"
    assert len(mailer.mailbox.messages) == 1


@requirement("kit:bindings:output")
async def test_a_slow_server_costs_the_time_limit_and_the_mail_may_arrive(mailer: Mailer) -> None:
    mailer.mailbox.pause.clear()
    assert await mailer.send(timed=True) == "DEADLINE_EXCEEDED"
    assert mailer.mailbox.tries == 1
    mailer.mailbox.pause.set()
    await wait_until(lambda: mailer.mailbox.messages, 10, "the mail to arrive late")
    assert mailer.mailbox.tries == 1


@requirement("kit:bindings:output")
async def test_a_dead_sidecar_is_unavailable(mailer: Mailer) -> None:
    mailer.stack.halt("llm-daprd")
    try:
        assert await mailer.send() in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    finally:
        mailer.stack.supervisor.start("llm-daprd")
        mailer.stack.wait_ready("llm-daprd")
    await wait_until(lambda: _is_sent(mailer), 30, "mail after the restart", every=0.2)


@requirement("kit:bindings:output")
async def test_data_over_the_limit_is_refused(mailer: Mailer) -> None:
    assert await mailer.send(size=MAX_MESSAGE_BYTES) == "PAYLOAD_TOO_LARGE"
    assert await mailer.send(size=MAX_MESSAGE_BYTES // 4) == "OK"
    assert mailer.mailbox.tries == 1


@requirement("kit:bindings:headers")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"subject": "s\r\nBcc: eve@example.com"}, "metadata.subject"),
        ({"subject": "s\nBcc: eve@example.com"}, "metadata.subject"),
        ({"emailTo": "ada@example.com\r\nBcc: eve@example.com"}, "metadata.emailTo"),
        ({"subject": "s\u2028Bcc: eve@example.com"}, "metadata.subject"),
        ({"subject": "s\0"}, "metadata.subject"),
        ({"subject": ""}, "metadata.subject"),
        ({"emailBCC": "eve@example.com"}, "metadata.emailBCC"),
    ],
)
async def test_metadata_that_adds_headers_is_refused(
    mailer: Mailer, change: dict[str, str], field: str
) -> None:
    metadata = {"emailTo": "ada@example.com", "subject": "s"} | change
    status, answer = await mailer.call("/send", {"metadata": metadata})
    assert (status, answer["error"]["code"]) == (400, "INVALID_ARGUMENT")
    assert field in answer["error"]["message"]
    assert mailer.mailbox.tries == 0


@requirement("kit:bindings:headers")
async def test_missing_metadata_is_refused(mailer: Mailer) -> None:
    assert await mailer.send(metadata={"subject": "s"}) == "INVALID_ARGUMENT"


@requirement("kit:bindings:input")
async def test_the_sidecar_delivers_messages(mailer: Mailer) -> None:
    await wait_until(lambda: _ticks(mailer), 20, "a tick of the clock", every=0.2)
    row = await mailer.database.fetch_one("SELECT read_at FROM ticks LIMIT 1")
    assert "UTC" in row[0]


@requirement("kit:bindings:input")
async def test_a_failed_message_changes_nothing_and_is_answered_by_its_error(
    mailer: Mailer,
) -> None:
    await mailer.database.fetch("INSERT INTO broken VALUES (1)")
    await mailer.database.fetch("DELETE FROM ticks")
    status, answer = await mailer.call("/clock", headers={"readTimeUTC": "now"})
    assert (status, answer["error"]["code"]) == (503, "UNAVAILABLE")
    assert await _ticks(mailer) == 0


@requirement("kit:bindings:input")
async def test_a_message_with_an_id_is_handled_once(mailer: Mailer) -> None:
    answers = await asyncio.gather(
        *(mailer.call("/orders", headers={"order-id": "o1"}) for _ in range(5))
    )
    assert answers == [(200, {})] * 5
    assert await mailer.call("/orders", headers={"order-id": "o2"}) == (200, {})
    assert await _orders(mailer) == ["o1", "o2"]


@requirement("kit:bindings:input")
async def test_a_death_before_the_commit_leaves_one_effect_of_the_repeated_message(
    mailer: Mailer, tmp_path: Path
) -> None:
    with FailpointControl(tmp_path / "failpoints", "bindings.before_commit:1:kill") as control:
        mailer.stack.restart("llm", env=control.environment)
        await wait_until(lambda: control.hits, 30, "a kill amid a message")
        await wait_until(lambda: mailer.stack.is_ready("llm"), 60, "the app")
        for _ in range(2):
            assert await mailer.call("/orders", headers={"order-id": "o3"}) == (200, {})
    assert await _orders(mailer) == ["o3"]


@requirement("kit:bindings:input")
async def test_only_the_sidecar_delivers_messages_and_asks_for_the_route(mailer: Mailer) -> None:
    assert await mailer.call("/orders", method="OPTIONS") == (200, {})
    for headers, code in (
        ({"dapr-caller-app-id": "auth"}, "PERMISSION_DENIED"),
        ({"dapr-api-token": "wrong"}, "UNAUTHENTICATED"),
    ):
        _, answer = await mailer.call("/orders", headers={"order-id": "o4", **headers})
        assert answer["error"]["code"] == code
    assert await _orders(mailer) == []


async def _is_sent(mailer: Mailer) -> bool:
    return await mailer.send() == "OK"


async def _ticks(mailer: Mailer) -> int:
    return (await mailer.database.fetch_one("SELECT count(*) FROM ticks"))[0]


async def _orders(mailer: Mailer) -> list[str]:
    rows = await mailer.database.fetch("SELECT id FROM orders ORDER BY id")
    return [row[0] for row in rows]
