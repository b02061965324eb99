"""An object store on the real S3 server of a stack, which has it because an app's manifest says so."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from services.cli.stack import Stack
from services.contracts import apps
from services.kit.manifest import OBJECTS
from services.kit.settings import load_settings
from services.kit.storage.objects import ObjectStore, ObjectStoreSettings
from tests.component.cli.command import TEMPLATE
from tests.support.port_offsets import offset_of

OFFSET = offset_of("objects")
APP = "workflows"
"""The app that uses the object store in these tests."""


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The servers of apps of which one has `objects` among its components."""
    declared = [
        replace(app, components=(*app.components, OBJECTS)) if app.id == APP else app
        for app in apps.APPS
    ]
    stack = Stack(tmp_path_factory.mktemp("objects"), port_offset=OFFSET, dapr_yaml=TEMPLATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apps, "APPS", tuple(declared))
        stack.start(apps=False)
        yield stack
        stack.stop()


@pytest.fixture
def settings(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> ObjectStoreSettings:
    """The settings that the app gets."""
    for name, value in stack.environment.for_app(APP).items():
        if name.startswith("YOCASO_OBJECTS_"):
            monkeypatch.setenv(name, value)
    return load_settings(ObjectStoreSettings)


@pytest.fixture
async def objects(settings: ObjectStoreSettings) -> AsyncIterator[ObjectStore]:
    opened = ObjectStore(settings)
    yield opened
    await opened.close()
