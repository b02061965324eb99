"""Loading an app."""

import gc
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from fastapi import FastAPI

from services.kit.http.serve import load_app


@pytest.fixture(autouse=True)
def collections() -> Iterator[None]:
    """As they were before."""
    yield
    gc.unfreeze()


@pytest.mark.parametrize("fails", [False, True])
def test_no_garbage_is_collected_while_an_app_loads_and_it_is_afterwards(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def create_app() -> FastAPI:
        seen.append(gc.isenabled())
        if fails:
            raise ValueError("a setting")
        return FastAPI()

    module = ModuleType("an_app")
    monkeypatch.setattr(module, "create_app", create_app, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    if fails:
        with pytest.raises(ValueError, match="a setting"):
            load_app(module.__name__)
    else:
        assert isinstance(load_app(module.__name__), FastAPI)
    assert seen == [False]
    assert gc.isenabled()
