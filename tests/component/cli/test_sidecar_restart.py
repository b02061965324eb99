"""A sidecar that hangs at its start: a real daprd that stops itself before its first start."""

import os
import shlex
import stat
from pathlib import Path

import pytest
from typing_extensions import override

from services.cli.stack.listener import Silent, State
from services.cli.stack.stack import Stack
from services.cli.stack.startup import SIDECAR_PATIENCE
from tests.component.cli.command import OFFSET, TEMPLATE, is_alive
from tests.component.cli.gated_go import BUILT
from tests.requirements import requirement

_DAPRD = """#!/bin/sh
if [ "$1" = --version ]; then echo 1.18.0; exit; fi
case "$*" in *"--app-id workflows "*)
  if ! [ -e {folder}/frozen ]; then echo $$ > {folder}/frozen; kill -STOP $$; fi ;;
esac
exec {daprd} "$@"
"""


class Lines(Silent):
    """Keeps what a stack reports."""

    def __init__(self) -> None:
        self.reported: list[str] = []
        self.states: list[tuple[str, State]] = []

    @override
    def report(self, text: str) -> None:
        self.reported.append(text)

    @override
    def process(self, name: str, state: State, seconds: float = 0.0, note: str = "") -> None:
        self.states.append((name, state))


@pytest.mark.timeout(90)
@requirement("stack:sidecar-restart")
def test_a_sidecar_frozen_at_its_start_is_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daprd = tmp_path / "bin" / "daprd"
    daprd.parent.mkdir()
    real = shlex.quote(str(BUILT.program("daprd")))
    daprd.write_text(_DAPRD.format(folder=shlex.quote(str(tmp_path)), daprd=real))
    daprd.chmod(daprd.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{daprd.parent}{os.pathsep}{os.environ['PATH']}")
    lines = Lines()
    with Stack(tmp_path / "state", port_offset=OFFSET, dapr_yaml=TEMPLATE, listener=lines) as stack:
        assert stack.is_ready("workflows-daprd")
        frozen = int((tmp_path / "frozen").read_text())
        assert stack.pid("workflows-daprd") != frozen
        assert not is_alive(frozen)
    told = f"workflows-daprd is not ready {SIDECAR_PATIENCE:.0f} s after workflows answers"
    assert [line for line in lines.reported if told in line] == [f"{told}: restarting it (1 of 2)"]
    assert ("workflows-daprd", State.RESTARTING) in lines.states
    assert ("llm-daprd", State.RESTARTING) not in lines.states
