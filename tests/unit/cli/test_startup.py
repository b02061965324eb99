"""The start of processes: limits of restarts and of waiting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.cli.stack.builds import Builds
from services.cli.stack.errors import StackError
from services.cli.stack.listener import Silent
from services.cli.stack.process import ProcessSpec, Readiness, Stage
from services.cli.stack.startup import SIDECAR_RESTARTS, Startup
from tests.requirements import requirement


class Starts:
    """A supervisor that records what it starts and stops."""

    log = Path("supervisor.log")

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, name: str) -> None:
        self.calls.append(f"start {name}")

    def stop(self, name: str) -> None:
        self.calls.append(f"stop {name}")

    def is_alive(self) -> bool:
        return True


def a_spec(name: str, stage: Stage) -> ProcessSpec:
    return ProcessSpec(name, stage, (name,), Readiness(1), {}, Path("/"))


def a_startup(starts: Any, is_ready: Callable[[str], bool], tmp_path: Path) -> Startup:
    names = {"llm": Stage.APPS, "llm-daprd": Stage.SIDECARS}
    specs = {name: a_spec(name, stage) for name, stage in names.items()}
    return Startup(
        specs,
        starts,
        Builds([], lambda _: None),
        {},
        Silent(),
        is_ready,
        lambda name: tmp_path / f"{name}.log",
        seconds=0.4,
        patience=0.05,
    )


@requirement("stack:sidecar-restart")
def test_a_sidecar_that_never_is_ready_is_restarted_twice_and_then_named(tmp_path: Path) -> None:
    starts = Starts()
    (tmp_path / "llm-daprd.log").write_text("waiting for placement\n")
    startup = a_startup(starts, lambda name: name == "llm", tmp_path)
    with pytest.raises(StackError, match=r"llm-daprd is not ready[\s\S]*waiting for placement"):
        startup.start(["llm", "llm-daprd"])
    assert starts.calls.count("stop llm-daprd") == SIDECAR_RESTARTS
    assert "stop llm" not in starts.calls


@requirement("stack:sidecar-restart")
def test_a_sidecar_is_not_restarted_while_its_app_does_not_answer(tmp_path: Path) -> None:
    starts = Starts()
    with pytest.raises(StackError, match="llm is not ready"):
        a_startup(starts, lambda _: False, tmp_path).start(["llm", "llm-daprd"])
    assert starts.calls == ["start llm", "start llm-daprd"]
