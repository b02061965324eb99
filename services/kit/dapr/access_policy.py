"""Access policies of sidecars (`accessControl` of a Dapr Configuration): which app may call which methods.

Dapr authenticates a caller by its certificate, so they need mTLS; without it Dapr would deny every call.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from services.kit.manifest import App

TRUST_DOMAIN: Final = "public"
"""Sentry's default trust domain, locally and on Kubernetes."""
NAMESPACE: Final = "default"

Policy = dict[str, Any]


def policy_of_caller(app_id: str, calls: Mapping[str, Collection[str]]) -> Policy:
    """The policy that allows an app the calls, verbs by path, and denies it all others."""
    return {
        "appId": app_id,
        "defaultAction": "deny",
        "trustDomain": TRUST_DOMAIN,
        "namespace": NAMESPACE,
        "operations": operations(calls),
    }


def operations(calls: Mapping[str, Collection[str]]) -> list[dict[str, Any]]:
    """Verbs by path as the operations of a policy."""
    return [
        {"name": path, "httpVerb": list(verbs), "action": "allow"}
        for path, verbs in sorted(calls.items())
    ]


def user_methods(app: App) -> dict[str, tuple[str, ...]]:
    """Verbs by path of the methods that a trusted back end may call: those with a scope."""
    return {method.path: method.verbs for method in app.methods if method.scope is not None}


def policies_of_trusted(app: App, trusted: Collection[str]) -> list[Policy]:
    """The policies that allow the operator's trusted back ends the user-facing methods of an app."""
    calls = user_methods(app)
    return [policy_of_caller(app_id, calls) for app_id in sorted(trusted)] if calls else []
