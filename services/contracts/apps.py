"""All app manifests, and the lists derived from them."""

import importlib
import pkgutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from services.contracts.auth.accounts import RECORD_ERASURE
from services.contracts.erasure import ERASE_USER
from services.kit.contract import AnyMethod, RpcService
from services.kit.manifest import App
from services.kit.references import AnyActivity, AnyWorkflow


def _manifests() -> list[App]:
    folders = [
        each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)]) if each.ispkg
    ]
    apps = [importlib.import_module(f"{__package__}.{name}.app").APP for name in folders]
    return sorted(apps, key=lambda app: app.number)


APPS: Final[tuple[App, ...]] = tuple(_manifests())
"""Ordered by `number`."""
EDGE: Final = next(app for app in APPS if app.is_edge)
SERVICES: Final[tuple[RpcService, ...]] = tuple(each for app in APPS for each in app.services)
METHODS: Final[tuple[AnyMethod, ...]] = tuple(each for app in APPS for each in app.methods)
WORKFLOWS: Final[tuple[AnyWorkflow, ...]] = tuple(each for app in APPS for each in app.workflows)
ACTIVITIES: Final[tuple[AnyActivity, ...]] = tuple(each for app in APPS for each in app.activities)
USER_SCOPES: Final = tuple(dict.fromkeys(scope for app in APPS for scope in app.scopes))
"""Scopes of a signed-in user."""
KEY_SCOPES: Final = tuple(
    scope for scope in USER_SCOPES if all(scope not in app.person_scopes for app in APPS)
)
"""Scopes that an API key may have."""
ERASERS: Final = tuple(
    sorted(
        (each for each in ACTIVITIES if each.name == ERASE_USER),
        key=lambda each: each.app_id == RECORD_ERASURE.app_id,
    )
)
"""`EraseUser` activities in execution order. `auth` is last: the others call it while they erase."""


def app_of(app_id: str) -> App:
    """The app with this app-id."""
    return next(app for app in APPS if app.id == app_id)


def callers_of(method: AnyMethod, trusted: Collection[str] = ()) -> tuple[str, ...]:
    """App-ids that may call a method.

    These are the apps with it in `calls`; if it is not internal, also the edge; if it has a scope, also the operator's
    `trusted` back ends.
    """
    callers = {app.id for app in APPS if any(method is each for each in app.calls)}
    if not method.internal:
        callers.add(EDGE.id)
    if method.scope is not None:
        callers.update(trusted)
    return tuple(sorted(callers))


def require_foreign(app_ids: Collection[str]) -> None:
    """Require that none of these is an app of the platform, whose calls follow from its manifest.

    Raises:
        ValueError: names those that are.
    """
    if own := sorted({app.id for app in APPS} & set(app_ids)):
        raise ValueError(f"{', '.join(own)}: an app of the platform cannot be a trusted back end")
