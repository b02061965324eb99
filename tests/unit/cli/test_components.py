"""Dapr components: same names and scopes in each environment, secrets by reference, scoped to apps."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli.stack.template import read_template
from services.kit.dapr.deliveries import HANDLER_SECONDS
from tests.requirements import requirement

ROOT = Path(__file__).parents[3]
SECRETS = {"connectionString", "redisPassword", "redisHost"}


def components(folder: str) -> dict[str, dict[str, Any]]:
    files = sorted((ROOT / "components" / folder).glob("*.yaml"))
    documents = [yaml.safe_load(file.read_text()) for file in files]
    return {document["metadata"]["name"]: document for document in documents}


@requirement("stack:dapr-yaml")
def test_components_have_the_same_names_and_scopes_in_production() -> None:
    local, production = components("local"), components("production")
    assert {name: one["scopes"] for name, one in local.items()} == {
        name: one["scopes"] for name, one in production.items()
    }


@requirement("stack:dapr-yaml")
def test_every_scope_is_an_app_of_the_template() -> None:
    apps = {app.app_id for app in read_template(ROOT / "dapr.yaml").apps}
    for component in components("local").values():
        assert component["scopes"]
        assert set(component["scopes"]) <= apps


@requirement("stack:dapr-yaml")
def test_secrets_are_references_to_the_secret_store() -> None:
    for folder in ("local", "production"):
        for component in components(folder).values():
            for item in component["spec"]["metadata"]:
                assert (item["name"] in SECRETS) == ("secretKeyRef" in item)


@requirement("stack:dapr-yaml")
def test_resiliency_sets_no_timeout_because_it_would_cut_streams() -> None:
    resiliency = components("common")["resiliency"]["spec"]
    assert "timeouts" not in resiliency["policies"]
    assert "apps" not in resiliency["targets"]


@requirement("kit:pubsub:retries")
@pytest.mark.parametrize("folder", ["local", "production"])
def test_deliveries_are_retried_for_longer_than_the_broker_waits(folder: str) -> None:
    """Daprd 1.18 acknowledges a Redis message, and so loses it, if the retries end before the processing timeout."""
    resiliency = components("common")["resiliency"]["spec"]
    retry = resiliency["policies"]["retries"][
        resiliency["targets"]["components"]["pubsub"]["inbound"]["retry"]
    ]
    assert retry["policy"] == "constant"
    retried = int(retry["duration"].removesuffix("ms")) / 1000 * retry["maxRetries"]
    metadata = {
        each["name"]: each.get("value") for each in components(folder)["pubsub"]["spec"]["metadata"]
    }
    assert retried > float(metadata["processingTimeout"].removesuffix("s")) > HANDLER_SECONDS


def test_apps_cannot_read_the_secret_store() -> None:
    scopes = components("common")["config"]["spec"]["secrets"]["scopes"]
    assert scopes == [{"storeName": "secrets", "defaultAccess": "deny"}]
