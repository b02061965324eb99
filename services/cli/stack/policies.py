"""Access policies of the secure profile: the committed ones, and those of the operator's trusted back ends."""

from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from services.cli.stack.errors import StackError
from services.contracts.apps import app_of, require_foreign
from services.kit.dapr.access_policy import policies_of_trusted
from services.kit.settings import TRUSTED_APPS, parse_app_ids


def trusted_apps(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The app-ids of the operator's trusted back ends.

    Raises:
        StackError: the variable's value is invalid.
    """
    try:
        app_ids = parse_app_ids(environ.get(TRUSTED_APPS, ""))
        require_foreign(app_ids)
    except ValueError as error:
        raise StackError(f"{TRUSTED_APPS}: {error}") from None
    return app_ids


def render_policy(source: Path, app_id: str, trusted: Collection[str], target: Path) -> Path:
    """Write an app's access policy with the trusted back ends added."""
    content = yaml.safe_load(source.read_text())
    content["spec"]["accessControl"]["policies"] += policies_of_trusted(app_of(app_id), trusted)
    target.write_text(yaml.safe_dump(content, sort_keys=False))
    return target
