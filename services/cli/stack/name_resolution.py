"""Dapr's name resolution by SQLite: one registry file per state folder."""

import contextlib
import sqlite3
from pathlib import Path

import yaml


def render_configuration(source: Path, registry: Path, target: Path, *, traced: bool) -> Path:
    """Write a Dapr Configuration with this stack's registry.

    Untraced, it sets the sampling rate to 0: recording spans costs a tenth of a sidecar's CPU. `traceparent` still
    propagates.
    """
    content = yaml.safe_load(source.read_text())
    if not traced:
        content["spec"]["tracing"] = {"samplingRate": "0"}
    settings = content["spec"].get("nameResolution", {}).get("configuration")
    if settings is not None:
        settings["connectionString"] = str(registry)
    target.write_text(yaml.safe_dump(content, sort_keys=False))
    return target


def registry_of(configuration: Path, folder: Path) -> Path | None:
    """The registry that a Dapr Configuration names; a relative path is relative to the sidecar's working directory."""
    content = yaml.safe_load(configuration.read_text())
    settings = content["spec"].get("nameResolution", {}).get("configuration")
    return folder / settings["connectionString"] if settings else None


def has_hosts(registry: Path) -> bool:
    """Whether a sidecar has registered."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{registry}?mode=ro", uri=True)) as database:
            return bool(database.execute("SELECT 1 FROM hosts LIMIT 1").fetchone())
    except sqlite3.Error:
        return False
