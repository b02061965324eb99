"""A `go` that holds each build until a file exists, then copies the program that was built before."""

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from services.cli.stack.binaries import Binaries, default_cache

ROOT: Final = Path(__file__).parents[3]
BUILT: Final = Binaries(default_cache(), ROOT / "services" / "edge", print)
"""The programs that the tests use."""

_SCRIPT: Final = """#!/bin/sh
set -eu
case "$1" in
mod) HOME="{home}" exec "{go}" "$@" ;;
list) for last; do :; done; printf 'runtime\\t/\\tfalse\\ttrue\\nexample/%s\\t/\\ttrue\\tfalse\\n' "$last" ;;
build)
  output=
  while [ $# -gt 0 ]; do [ "$1" != -o ] || output=$2; shift; done
  [ -n "$output" ] || exit 0
  echo $$ >> "{folder}/builds"
  sleep 600 &
  echo $! >> "{folder}/children"
  while ! [ -e "{folder}/open" ]; do sleep 0.05; done
  kill $!
  name=$(basename "$output"); name=${{name#.}}
  cp "{built}/${{name%.*}}" "$output"
  ;;
esac
"""


class GatedGo:
    """The command `go` in a folder, for PATH; its builds end once `open` was called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        real = shutil.which("go") or "go"
        go = folder / "go"
        go.write_text(_SCRIPT.format(go=real, home=Path.home(), folder=folder, built=BUILT.cache))
        go.chmod(go.stat().st_mode | stat.S_IXUSR)

    @property
    def path(self) -> str:
        """A PATH with this `go` and without an installed daprd."""
        found = shutil.which("daprd")
        without = str(Path(found).parent) if found else None
        others = os.environ["PATH"].split(os.pathsep)
        return os.pathsep.join([str(self._folder), *(each for each in others if each != without)])

    @property
    def builds(self) -> list[int]:
        """Processes of `go build`."""
        return self._pids("builds")

    @property
    def children(self) -> list[int]:
        """Processes that the builds started, as Go starts compilers."""
        return self._pids("children")

    def _pids(self, name: str) -> list[int]:
        file = self._folder / name
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def open(self) -> None:
        """Let all builds end."""
        (self._folder / "open").touch()
