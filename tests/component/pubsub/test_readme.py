"""The example of kit's README."""

from pathlib import Path

import pytest

from services.kit.dapr.pubsub.cloudevents import decode
from services.kit.dapr.pubsub.outbox import Outbox
from tests.component.pubsub.conftest import Apps
from tests.requirements import requirement
from tests.support.readme import example_of

README = Path(__file__).parents[3] / "services" / "kit" / "README.md"
TABLES = (
    "CREATE SCHEMA plans",
    "CREATE SCHEMA stats",
    "CREATE TABLE plans.plans (plan_id text, shared boolean DEFAULT false)",
    "CREATE TABLE stats.users (user_id text, shared int DEFAULT 0)",
    "INSERT INTO plans.plans VALUES ('p1')",
    "INSERT INTO stats.users VALUES ('ada')",
)

pytestmark = pytest.mark.timeout(120)


@requirement("kit:pubsub:outbox")
async def test_the_example_publishes_and_counts(apps: Apps) -> None:
    example, database = example_of(README, "Publish and subscribe"), apps.database
    for table in TABLES:
        await database.fetch(table)
    topic = example["PLAN_SHARED"]
    await example["share"](database, Outbox([topic]), "p1", "ada")
    row = await database.fetch_one("DELETE FROM events.outbox WHERE app = 'plans' RETURNING body")
    event = decode(row["body"]).open(topic)
    async with database.transaction() as transaction:
        await example["count"](event, transaction)
    assert (await database.fetch_one("SELECT shared FROM plans.plans"))[0]
    assert (await database.fetch_one("SELECT shared FROM stats.users"))[0] == 1
