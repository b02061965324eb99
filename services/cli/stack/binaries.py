"""Programs of the stack: found on this machine, or built once from pinned sources and cached by version."""

import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.cli.stack.builds import Builds, Program, Progress
from services.cli.stack.toolchain import GoProgram, Toolchain

_CONTROL_PLANE: Final = "1.18.3"
VERSIONS: Final = {
    "daprd": "1.18.0",
    "placement": _CONTROL_PLANE,
    "scheduler": _CONTROL_PLANE,
    "sentry": _CONTROL_PLANE,
    "openfga": "1.22.1",
    "helm": "3.20.2",
    "versitygw": "1.8.0",
}
OPTIONAL: Final[Mapping[str, str]] = {
    "sentry": "`yocaso up --secure`",
    "versitygw": "apps that store objects",
    "helm": "the tests of the chart",
}
"""Programs that not every stack needs, by what needs them."""
MIN_DAPRD: Final = (1, 18)
_DAPR: Final = "github.com/dapr/dapr"
_DAPR_STAMP: Final = f"{_DAPR}/pkg/buildinfo.version="
_MODULES: Final = {
    "daprd": (_DAPR, _DAPR_STAMP),
    "placement": (_DAPR, _DAPR_STAMP),
    "scheduler": (_DAPR, _DAPR_STAMP),
    "sentry": (_DAPR, _DAPR_STAMP),
    "openfga": ("github.com/openfga/openfga", "github.com/openfga/openfga/internal/build.Version="),
    "helm": ("helm.sh/helm/v3", "helm.sh/helm/v3/internal/version.version=v"),
    "versitygw": ("github.com/versity/versitygw", "main.Version=v"),
}
"""The module of each program, whose main package is `cmd/<program>`, and the variable that holds its version."""
_EDGE: Final = "edge"
_COMPONENTS: Final = Path("cmd", "daprd", "components")
_ADDED: Final = ("nameresolution_sqlite.go", "bindings_smtp.go")
"""Components that our daprd has beside the stable ones.

The only stable name resolver, mDNS, mixes up two stacks on one machine and uses the network.
"""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Finds each program and builds missing ones; concurrent commands build each once."""

    cache: Path
    edge_source: Path
    progress: Progress

    def path(self, name: str) -> Path:
        """Where a program is, or will be once built: an installed daprd of 1.18 or later, else a file in the cache."""
        found = installed_daprd() if name == "daprd" else None
        return found or self._target(name)

    def paths(self) -> dict[str, Path]:
        """The path of every program, by name."""
        return {name: self.path(name) for name in (*_MODULES, _EDGE)}

    def program(self, name: str) -> Path:
        """The path of a program, built if missing."""
        self.builds([name]).wait()
        return self.path(name)

    def builds(self, names: Iterable[str]) -> Builds:
        """Builds of those of the programs that are missing."""
        missing = [name for name in names if not self.path(name).exists()]
        programs = [Program(each, self._target(each), self._source(each)) for each in missing]
        return Builds(programs, self.progress)

    def missing(self) -> list[str]:
        """The programs of every stack that `yocaso up` would build."""
        paths = self.paths().items()
        return [name for name, path in paths if name not in OPTIONAL and not path.exists()]

    def dapr_crds(self) -> Path:
        """The folder with Dapr's Kubernetes CRDs."""
        source = Toolchain().download("dapr", f"{_DAPR}@v{_CONTROL_PLANE}")
        return source / "charts" / "dapr" / "crds"

    def _target(self, name: str) -> Path:
        version = VERSIONS.get(name) or source_hash(self.edge_source)
        if name == "daprd":
            version += "-" + hashlib.sha256(" ".join(_ADDED).encode()).hexdigest()[:6]
        return self.cache / f"{name}-{version}"

    def _source(self, name: str) -> Callable[[Toolchain, Path], GoProgram]:
        if name == _EDGE:
            return self._edge
        return functools.partial(_released, name)

    def _edge(self, _: Toolchain, __: Path) -> GoProgram:
        return GoProgram(_EDGE, self.edge_source, ".", ("-ldflags", "-s -w"))


def _released(name: str, toolchain: Toolchain, scratch: Path) -> GoProgram:
    """The sources of a pinned version."""
    module, stamp = _MODULES[name]
    folder = toolchain.download(name, f"{module}@v{VERSIONS[name]}")
    flags = ("-ldflags", f"-s -w -X {stamp}{VERSIONS[name]}")
    if name == "daprd":
        folder, flags = _with_components(folder, scratch), (*flags, "-tags", "stablecomponents")
    return GoProgram(name, folder, f"./cmd/{name}", flags)


def _with_components(dapr: Path, scratch: Path) -> Path:
    """A copy of Dapr's module that adds components to the stable ones; Go refuses overlays of its module cache."""
    copy, tag = scratch / "dapr", "//go:build allcomponents"
    shutil.copytree(dapr, copy, copy_function=shutil.copyfile)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for name in _ADDED:
        source = copy / _COMPONENTS / name
        source.write_text(source.read_text().replace(tag, f"{tag} || stablecomponents", 1))
    return copy


def default_cache() -> Path:
    """The folder of built programs, shared by all checkouts of a user; `YOCASO_CACHE` overrides its parent."""
    root = os.environ.get("YOCASO_CACHE") or str(Path.home() / ".cache" / "yocaso")
    return Path(root).expanduser() / "bin"


def installed_daprd() -> Path | None:
    """The daprd on PATH or in `~/.dapr/bin` (from `dapr init`), if not older than `MIN_DAPRD`."""
    for candidate in (shutil.which("daprd"), str(Path.home() / ".dapr" / "bin" / "daprd")):
        if candidate and Path(candidate).exists():
            version = _daprd_version(candidate)
            if version and version >= MIN_DAPRD:
                return Path(candidate)
    return None


def _daprd_version(path: str) -> tuple[int, int] | None:
    try:
        output = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"v?(\d+)\.(\d+)", output.stdout.strip())
    return (int(found[1]), int(found[2])) if found else None


def source_hash(folder: Path) -> str:
    """A hash of the Go sources and embedded files; tests, their data and Markdown do not change the program."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder)
        if not file.name.endswith(("_test.go", ".md")) and "testdata" not in name.parts:
            digest.update(str(name).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
