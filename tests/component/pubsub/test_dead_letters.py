"""Poison: it is given up as dead letters while other events flow, and redriven when the handler is mended."""

import asyncio
import json
import sys
import uuid
from typing import Any

import pytest
from valkey.asyncio import Valkey

from services.cli.edge import StackEndpoints
from tests.component.pubsub.conftest import Apps
from tests.component.pubsub.test_pubsub import envelope, has_moves, moves
from tests.component.pubsub.topics import BUG, MOVED, PLACED, REFUSED, SLOW, UNAVAILABLE
from tests.requirements import requirement
from tests.support.wait import wait_until

pytestmark = pytest.mark.timeout(150)


@requirement("kit:pubsub:dead-letters")
async def test_poison_is_given_up_while_others_flow_and_is_redriven_once(apps: Apps) -> None:
    await apps.place(1, BUG, 2, REFUSED, 3, SLOW, 4)
    await apps.wait_entered(1, 2, 3, 4)
    found = {letter["error"]["code"]: letter for letter in await wait_letters(apps, 3, 90)}
    assert set(found) == {"INTERNAL", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED"}
    assert {code: letter["attempts"] for code, letter in found.items()} == {
        "INTERNAL": 5,
        "FAILED_PRECONDITION": 1,
        "DEADLINE_EXCEEDED": 5,
    }
    assert await tries(apps, BUG) == 5
    assert await tries(apps, REFUSED) == 1
    assert "secret" not in str(found)
    bug, slow = found["INTERNAL"], found["DEADLINE_EXCEEDED"]
    shown = await apps.letters("GetDeadLetter", deadLetterId=bug["deadLetterId"])
    assert shown["deadLetter"] == bug
    assert f'"number": {BUG}' in shown["event"]

    failed = await apps.refused("RedriveDeadLetter", deadLetterId=bug["deadLetterId"])
    assert failed["code"] == "INTERNAL"
    again = await apps.letters("GetDeadLetter", deadLetterId=bug["deadLetterId"])
    assert again["deadLetter"]["attempts"] == 6

    await apps.database.fetch("INSERT INTO ledger.mended DEFAULT VALUES")
    for letter in (bug, slow):
        await apps.letters("RedriveDeadLetter", deadLetterId=letter["deadLetterId"])
    assert await apps.entries(BUG, SLOW) == sorted([BUG, SLOW])
    gone = await apps.refused("RedriveDeadLetter", deadLetterId=bug["deadLetterId"])
    assert gone["code"] == "NOT_FOUND"
    assert [letter["eventId"] for letter in await apps.dead_letters()] == [
        found["FAILED_PRECONDITION"]["eventId"]
    ]


@requirement("kit:pubsub:dead-letters")
async def test_concurrent_redrives_have_one_effect(apps: Apps) -> None:
    await apps.place(REFUSED)
    [letter] = await wait_letters(apps, 1)
    await apps.database.fetch("INSERT INTO ledger.mended DEFAULT VALUES")
    path, owner = "/yocaso.auth.v1.DeadLetterService/RedriveDeadLetter", "auth"
    answers = await asyncio.gather(
        *(
            apps.post(
                "auth", path, {"dapr-caller-app-id": owner}, deadLetterId=letter["deadLetterId"]
            )
            for _ in range(4)
        )
    )
    assert sorted(status for status, _ in answers) == [200, 404, 404, 404]
    assert await apps.entries(REFUSED) == [REFUSED]


@requirement("kit:pubsub:dead-letters")
async def test_a_given_up_event_does_not_stop_the_later_ones_of_its_key(apps: Apps) -> None:
    key, path = uuid.uuid4().hex, f"/events/{MOVED.name}"
    for place, step in ((1, 1), (2, -5), (3, 3)):
        event = envelope(MOVED.name, step=step)
        event |= {
            "partitionkey": key,
            "sequence": str(place),
            "previoussequence": str(place - 1),
        }
        assert await apps.deliver(path, event) == "SUCCESS"
    assert await moves(apps, key) == [1, 3]
    [letter] = await apps.dead_letters(topic=MOVED.name)
    await apps.database.fetch("INSERT INTO ledger.mended DEFAULT VALUES")
    await apps.letters("RedriveDeadLetter", deadLetterId=letter["deadLetterId"])
    assert await has_moves(apps, key, 3)


@requirement("kit:pubsub:dead-letters")
@pytest.mark.parametrize("message", [b"\xff\x00 not JSON", b"[]", b'{"specversion": "1.0"}'])
async def test_a_message_that_is_no_event_is_a_dead_letter(apps: Apps, message: bytes) -> None:
    valkey = Valkey.from_url(apps.stack.environment.valkey_url)
    await valkey.xadd(PLACED.name, {"data": message})
    await valkey.aclose()
    [letter] = await wait_letters(apps, 1)
    assert letter["error"]["code"] == "INVALID_ARGUMENT"
    refused = await apps.refused("RedriveDeadLetter", deadLetterId=letter["deadLetterId"])
    assert refused["code"] == "INVALID_ARGUMENT"


@requirement("kit:pubsub:dead-letters")
async def test_events_of_another_shape_are_dead_letters_and_new_fields_are_ignored(
    apps: Apps,
) -> None:
    path = f"/events/{PLACED.name}"
    assert await apps.deliver(path, envelope(PLACED.name, number="many")) == "SUCCESS"
    [letter] = await apps.dead_letters()
    assert letter["error"]["code"] == "INVALID_ARGUMENT"
    assert await apps.deliver(path, envelope(PLACED.name, number=61, colour="red")) == "SUCCESS"
    assert await apps.entries(61) == [61]


@requirement("kit:pubsub:dead-letters")
async def test_dead_letters_are_listed_in_pages(apps: Apps) -> None:
    path = f"/events/{PLACED.name}"
    for _ in range(5):
        await apps.deliver(path, envelope(PLACED.name, number=REFUSED))
    first = await apps.letters("ListDeadLetters", limit=3)
    second = await apps.letters("ListDeadLetters", limit=3, cursor=first["nextCursor"])
    ids = [letter["deadLetterId"] for page in (first, second) for letter in page["deadLetters"]]
    assert len(set(ids)) == 5
    assert "nextCursor" not in second
    refused = await apps.refused("ListDeadLetters", cursor="nonsense")
    assert refused["code"] == "INVALID_ARGUMENT"


@requirement("kit:pubsub:dead-letters")
async def test_the_command_lists_shows_and_redrives(apps: Apps) -> None:
    folder = apps.stack.state
    sidecars = {name: apps.stack.url(f"{name}-daprd") for name in ("llm", "auth")}
    StackEndpoints("http://127.0.0.1:1", sidecars).save(folder)
    assert await run_command(apps, "list") == (0, "no dead letters\n")
    path = f"/events/{PLACED.name}"
    for number in (REFUSED, BUG):
        await apps.deliver(path, envelope(PLACED.name, number=number))
    await apps.deliver(path, envelope(PLACED.name, number="many"))
    [refused, malformed] = await apps.dead_letters()
    status, printed = await run_command(apps, "list")
    assert status == 0
    assert [line.split("  ")[0] for line in printed.splitlines()[:2]] == [
        refused["deadLetterId"],
        malformed["deadLetterId"],
    ]
    assert "FAILED_PRECONDITION: The order is refused." in printed
    assert "yocaso dead-letters redrive" in printed
    status, printed = await run_command(apps, "list", "--json", "--app", "auth")
    assert [json.loads(line)["deadLetterId"] for line in printed.splitlines()] == [
        refused["deadLetterId"],
        malformed["deadLetterId"],
    ]
    status, printed = await run_command(apps, "show", refused["deadLetterId"])
    assert (status, json.loads(printed)["event"]["data"]["number"]) == (0, REFUSED)
    await apps.database.fetch("INSERT INTO ledger.mended DEFAULT VALUES")
    status, printed = await run_command(apps, "redrive")
    assert (status, printed.splitlines()[-1]) == (1, "1 handled, 1 failed")
    assert await apps.entries(REFUSED) == [REFUSED]
    status, printed = await run_command(apps, "show", refused["deadLetterId"])
    assert status == 1
    assert f"no app has the dead letter {refused['deadLetterId']}" in printed
    status, printed = await run_command(apps, "list", "--app", "edge")
    assert (status, printed) == (2, "edge subscribes to no topic; choose of auth\n")


async def run_command(apps: Apps, *arguments: str) -> tuple[int, str]:
    """Exit status and output of `yocaso dead-letters`."""
    command = (sys.executable, "-m", "services.cli.main", "dead-letters", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--state", str(apps.stack.state.path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@requirement("kit:pubsub:callers")
async def test_another_app_may_not_read_dead_letters(apps: Apps) -> None:
    path = "/yocaso.auth.v1.DeadLetterService/ListDeadLetters"
    status, answer = await apps.post("auth", path, {"dapr-caller-app-id": "llm"})
    assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")


@requirement("kit:pubsub:retries")
async def test_an_unavailable_handler_is_asked_again_and_nothing_is_given_up(apps: Apps) -> None:
    await apps.place(UNAVAILABLE)

    async def tried() -> bool:
        return await tries(apps, UNAVAILABLE) >= 3

    await wait_until(tried, 40, "three tries")
    assert await apps.dead_letters() == []
    await apps.database.fetch("INSERT INTO ledger.mended DEFAULT VALUES")
    await apps.wait_entered(UNAVAILABLE)
    assert await apps.dead_letters() == []


async def wait_letters(apps: Apps, count: int, seconds: float = 40) -> list[dict[str, Any]]:
    async def found() -> list[dict[str, Any]] | None:
        letters = await apps.dead_letters()
        return letters if len(letters) >= count else None

    return await wait_until(found, seconds, f"{count} dead letters", every=0.1)


async def tries(apps: Apps, number: int) -> int:
    query = "SELECT count(*) FROM ledger.tries WHERE number = $1"
    return (await apps.database.fetch_one(query, number))[0]
