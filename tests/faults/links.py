"""The connections of a platform that pass a fault proxy."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.cli.stack import postgres
from services.cli.stack.ports import INFRA_PORTS, LOOPBACK, PortPlan
from services.cli.stack.state import StateFolder, write_private
from services.contracts.apps import APPS, EDGE, app_of
from services.kit.manifest import SIDECAR_HTTP_PORT_BASE
from tests.support.toxiproxy import ProxiedPort

API: Final = 6470
"""Port of the API of the proxies."""
APP: Final = "llm"
BEHIND_PROXY: Final = 6475
"""Where llm listens; its own port is that of the proxy, which its sidecar calls."""


@dataclass(frozen=True, slots=True)
class Link:
    """A connection between two kinds of processes; `carries_calls`: an append passes it."""

    name: str
    port: ProxiedPort
    carries_calls: bool


LINKS: Final = {
    name: Link(name, ProxiedPort(name, listen, upstream), carries_calls)
    for name, listen, upstream, carries_calls in (
        ("app-postgres", 6471, INFRA_PORTS["postgres"], True),
        ("app-valkey", 6472, INFRA_PORTS["valkey"], False),
        ("sidecar-postgres", 6473, INFRA_PORTS["postgres"], False),
        ("edge-sidecar", 6474, SIDECAR_HTTP_PORT_BASE + EDGE.number, True),
        ("sidecar-app", app_of(APP).port, BEHIND_PROXY, True),
    )
}


def proxied_ports(plan: PortPlan) -> list[ProxiedPort]:
    """The proxies of every link, with the platform's offset."""
    ports = (link.port for link in LINKS.values())
    return [
        ProxiedPort(each.name, plan.shifted(each.listen), plan.shifted(each.upstream))
        for each in ports
    ]


def environment(state: Path, plan: PortPlan) -> Mapping[str, Mapping[str, str]]:
    """The environment by which the processes of a platform use the proxies; makes the passwords that it contains."""
    folder = StateFolder(state)
    folder.create()
    values = folder.load_secrets()
    password = folder.secret(values, "postgresPassword")
    valkey = folder.secret(values, "valkeyPassword")
    folder.save_secrets(values)
    postgres_port, valkey_port = _listen(plan, "app-postgres"), _listen(plan, "app-valkey")
    sidecar_secrets = folder.path / "sidecar-secrets.json"
    stores = {
        "postgresConnectionString": postgres.store_url(_listen(plan, "sidecar-postgres"), password),
        "valkeyHost": f"{LOOPBACK}:{plan.of('valkey')}",
        "valkeyPassword": valkey,
    }
    write_private(sidecar_secrets, json.dumps(stores))
    return {
        "*": {
            "YOCASO_DATABASE_URL": postgres.url(postgres_port, password),
            "YOCASO_VALKEY_URL": f"redis://:{valkey}@{LOOPBACK}:{valkey_port}/0",
        },
        "edge": {"DAPR_HTTP_PORT": str(_listen(plan, "edge-sidecar"))},
        APP: {"APP_PORT": str(plan.shifted(BEHIND_PROXY))},
        **{f"{app.id}-daprd": {"YOCASO_SECRETS_FILE": str(sidecar_secrets)} for app in APPS},
    }


def _listen(plan: PortPlan, name: str) -> int:
    return plan.shifted(LINKS[name].port.listen)
