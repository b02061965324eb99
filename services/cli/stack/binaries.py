"""Programs of the stack: found on this machine, or built once from pinned sources and cached by version."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.cli.stack.errors import StackError

_CONTROL_PLANE: Final = "1.18.3"
VERSIONS: Final = {
    "daprd": "1.18.0",
    "placement": _CONTROL_PLANE,
    "scheduler": _CONTROL_PLANE,
    "sentry": _CONTROL_PLANE,
    "openfga": "1.22.1",
    "helm": "3.20.2",
}
REQUIRED: Final = ("placement", "scheduler", "openfga", "edge")
"""Programs of every stack, beside daprd; sentry is for `--secure` and helm for the chart's tests."""
MIN_DAPRD: Final = (1, 18)
GO_HELP: Final = (
    "Go is not on PATH: install Go 1.24 or later from https://go.dev/dl/, needed to build {}"
)
_DAPR: Final = "github.com/dapr/dapr"
_OPENFGA: Final = "github.com/openfga/openfga"
_HELM: Final = "helm.sh/helm/v3"
_PROGRESS_SECONDS: Final = 10

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Binaries:
    """Finds each program and builds a missing one; a file lock makes concurrent commands build it once."""

    cache: Path
    edge_source: Path
    progress: Progress

    def dapr_crds(self) -> Path:
        """The folder with Dapr's Kubernetes CRDs."""
        source = _module("dapr", f"{_DAPR}@v{_CONTROL_PLANE}", self.progress)
        return source / "charts" / "dapr" / "crds"

    def daprd(self) -> Path:
        """An installed daprd of 1.18 or later, else one built at the pinned version."""
        return installed_daprd() or self._dapr("daprd", "-tags", "stablecomponents")

    def placement(self) -> Path:
        """Dapr's placement service."""
        return self._dapr("placement")

    def scheduler(self) -> Path:
        """Dapr's scheduler service."""
        return self._dapr("scheduler")

    def sentry(self) -> Path:
        """Dapr's certificate authority."""
        return self._dapr("sentry")

    def openfga(self) -> Path:
        return self._stamped("openfga", _OPENFGA, f"{_OPENFGA}/internal/build.Version=")

    def helm(self) -> Path:
        return self._stamped("helm", _HELM, f"{_HELM}/internal/version.version=v")

    def edge(self) -> Path:
        """The edge, built again when its sources change."""

        def build(output: Path) -> None:
            flags = ["-trimpath", "-ldflags", "-s -w"]
            _go_build("edge", self.edge_source, output, flags, ".", self.progress)

        return self._cached("edge", build)

    def missing(self) -> list[str]:
        """The required programs that `yocaso up` would build."""
        wanted = REQUIRED if installed_daprd() else (*REQUIRED, "daprd")
        return [name for name in wanted if not self._path(name).exists()]

    def _path(self, name: str) -> Path:
        version = VERSIONS.get(name) or source_hash(self.edge_source)
        return self.cache / f"{name}-{version}"

    def _dapr(self, name: str, *flags: str) -> Path:
        version = VERSIONS[name]

        def build(output: Path) -> None:
            stamp = ["-ldflags", f"-s -w -X {_DAPR}/pkg/buildinfo.version={version}"]
            with _dapr_source(name, version, self.progress) as source:
                _go_build(name, source, output, [*flags, *stamp], f"./cmd/{name}", self.progress)

        return self._cached(name, build)

    def _stamped(self, name: str, module: str, variable: str) -> Path:
        version = VERSIONS[name]

        def build(output: Path) -> None:
            source = _module(name, f"{module}@v{version}", self.progress)
            stamp = ["-ldflags", f"-s -w -X {variable}{version}"]
            _go_build(name, source, output, stamp, f"./cmd/{name}", self.progress)

        return self._cached(name, build)

    def _cached(self, name: str, build: Callable[[Path], None]) -> Path:
        target = self._path(name)
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _build_lock(target, self.progress):
            if not target.exists():
                began = time.monotonic()
                self.progress(f"building {target.name}; a first build takes minutes")
                staged = target.with_name(f".{target.name}.{os.getpid()}")
                build(staged)
                staged.replace(target)
                self.progress(f"built {target.name} in {time.monotonic() - began:.0f} s")
        return target


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
    """A hash of the Go sources and embedded files; tests and Markdown do not change the program."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if not file.name.endswith(("_test.go", ".md")):
            digest.update(
                str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0"
            )
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _build_lock(target: Path, progress: Progress) -> Iterator[None]:
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another command to build {target.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _dapr_source(name: str, version: str, progress: Progress) -> Iterator[Path]:
    """Dapr's module; for daprd a copy that adds the SQLite name resolver to the stable components.

    The stable build otherwise has only mDNS, which mixes up two stacks on one machine and uses the network.
    """
    source = _module(name, f"{_DAPR}@v{version}", progress)
    if name != "daprd":
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="yocaso-build-") as folder:
        copy = Path(folder) / "dapr"
        shutil.copytree(source, copy, copy_function=shutil.copyfile)
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        resolver = copy / "cmd" / "daprd" / "components" / "nameresolution_sqlite.go"
        tag = "//go:build allcomponents"
        resolver.write_text(resolver.read_text().replace(tag, f"{tag} || stablecomponents", 1))
        yield copy


def _module(name: str, module: str, progress: Progress) -> Path:
    """Downloads a Go module; Go verifies its checksum."""
    return Path(json.loads(_go(name, ["mod", "download", "-json", module], progress))["Dir"])


def _go_build(
    name: str, source: Path, output: Path, flags: list[str], package: str, progress: Progress
) -> None:
    _go(name, ["build", "-C", str(source), *flags, "-o", str(output), package], progress)


def _go(name: str, arguments: list[str], progress: Progress) -> str:
    if shutil.which("go") is None:
        raise StackError(GO_HELP.format(name))
    began = time.monotonic()
    with subprocess.Popen(
        ["go", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=_PROGRESS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                progress(f"still building {name} ({time.monotonic() - began:.0f} s)")
            except BaseException:
                process.terminate()
                raise
    if process.returncode != 0:
        raise StackError(
            f"building {name} failed in `go {arguments[0]}`:\n{errors[-2000:].strip()}"
        )
    return output
