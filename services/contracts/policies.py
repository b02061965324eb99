"""What each app's sidecar is told of trust, as Dapr resources rendered from the table of services.

`python -m services.contracts.policies` writes `components/apps` (per app: what all share, and which of Dapr's APIs the
app may use) and `components/policies` (per app: which app may call which of its methods and activities; the caller is
proven by mTLS, and without it Dapr would refuse every call). With `--check` it only says whether those files differ.
"""

import sys
from pathlib import Path
from typing import Any, Final

import yaml

from services.contracts.accounts import ERASERS, RECORD_ERASURE
from services.contracts.edge import JWKS_PATH
from services.contracts.emitted import emit
from services.contracts.services import SERVICES
from services.contracts.turns import RUN_TURN
from services.kit.contract import RpcMethod

Resource = dict[str, Any]

COMPONENTS: Final = Path(__file__).parents[2] / "components"
SHARED: Final = COMPONENTS / "common" / "config.yaml"
HEADER: Final = "# Written by `poe emit` from the contracts.\n"
EDGE: Final = "edge"
ORCHESTRATOR: Final = "workflows"
HEALTH_PATH: Final = "/healthz"
HISTORY_KEPT: Final = "24h"
"""How long after its end the history of a workflow can be looked at."""
TRUST_DOMAIN: Final = "public"
"""What sentry puts into the certificate of a workload that names no other, here and on Kubernetes."""
NAMESPACE: Final = "default"

HEALTH_ONLY: Final = ("healthz", "v1")
UNLOCK: Final = ("unlock", "v1alpha1")
"""Does nothing where no lock store is: an empty list of one protocol would allow all of it."""
ACTORS: Final = (("actors", "v1"), ("state", "v1"), ("metadata", "v1"))
"""What an app with actors needs; by the metadata it sees whether the sidecar has them."""
APIS: Final[dict[str, dict[str, tuple[tuple[str, str], ...]]]] = {
    "auth": {"http": (("invoke", "v1"),), "grpc": ACTORS},
    "llm": {"http": (("invoke", "v1"),), "grpc": ACTORS},
    ORCHESTRATOR: {"http": (HEALTH_ONLY,), "grpc": (UNLOCK,)},
    EDGE: {"http": (("invoke", "v1"),), "grpc": (UNLOCK,)},
}
"""Which of Dapr's APIs an app uses; its sidecar has no other. The workflow SDK's own protocol is not among them."""
ACTIVITIES: Final = (RUN_TURN, RECORD_ERASURE, *ERASERS)


def files() -> dict[Path, str]:
    """Every file with its content."""
    written = {Path("policies") / "activities.yaml": _text(*activity_policies())}
    for app in APIS:
        written[Path("apps") / f"{app}.yaml"] = _text(configuration(app))
        written[Path("policies") / f"{app}.yaml"] = _text(access_policy(app))
    return {COMPONENTS / path: text for path, text in sorted(written.items())}


def configuration(app: str) -> Resource:
    """What a sidecar is configured with: what all share, and the APIs that its app may use."""
    shared: Resource = yaml.safe_load(SHARED.read_text())
    allowed = [
        {"name": name, "version": version, "protocol": protocol}
        for protocol, apis in APIS[app].items()
        for name, version in apis
    ]
    spec: Resource = {**shared["spec"], "api": {"allowed": allowed}}
    if app == ORCHESTRATOR:
        spec["workflow"] = {"stateRetentionPolicy": {"anyTerminal": HISTORY_KEPT}}
    return _resource("Configuration", app, spec)


def access_policy(app: str) -> Resource:
    """Who may call which methods of an app; nobody may call anything else."""
    callers = {caller: calls for caller in APIS if (calls := _calls(app, caller))}
    control = {
        "defaultAction": "deny",
        "trustDomain": TRUST_DOMAIN,
        "policies": [
            {
                "appId": caller,
                "defaultAction": "deny",
                "trustDomain": TRUST_DOMAIN,
                "namespace": NAMESPACE,
                "operations": [
                    {"name": path, "httpVerb": list(verbs), "action": "allow"}
                    for path, verbs in sorted(calls.items())
                ],
            }
            for caller, calls in sorted(callers.items())
        ],
    }
    return _resource("Configuration", app, {"accessControl": control})


def activity_policies() -> list[Resource]:
    """Who may schedule an app's activities: the workflows, and nobody else."""
    hosts = sorted({activity.app_id for activity in ACTIVITIES})
    return [
        {
            **_resource("WorkflowAccessPolicy", f"activities-of-{host}", {"rules": [_rule(host)]}),
            "scopes": [host],
        }
        for host in hosts
    ]


def may_call(caller: str, method: RpcMethod) -> bool:
    """Whether the contract lets an app call a method."""
    return caller in method.callers if method.internal else caller == EDGE


def _calls(app: str, caller: str) -> dict[str, tuple[str, ...]]:
    calls = {
        service.path(method): ("POST", "GET") if method.stream else ("POST",)
        for service in SERVICES
        if service.app_id == app
        for method in service.methods
        if may_call(caller, method)
    }
    if (app, caller) == ("auth", EDGE):
        calls[JWKS_PATH] = ("GET",)
    if caller == EDGE and any(m.stream for s in SERVICES if s.app_id == app for m in s.methods):
        calls[HEALTH_PATH] = ("GET",)  # what the edge says to keep streams connected
    return calls


def _rule(host: str) -> Resource:
    names = sorted(activity.name for activity in ACTIVITIES if activity.app_id == host)
    return {
        "callers": [{"appID": ORCHESTRATOR}],
        "activities": [{"name": name} for name in names],
    }


def _resource(kind: str, name: str, spec: Resource) -> Resource:
    return {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def _text(*resources: Resource) -> str:
    return HEADER + "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in resources)


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` say which differ; the exit code is 1 when one does."""
    folders = (COMPONENTS / "apps", COMPONENTS / "policies")
    return emit(files(), arguments, (path for each in folders for path in each.glob("*.yaml")))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
