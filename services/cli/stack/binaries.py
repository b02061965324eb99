"""Dapr's, OpenFGA's and the edge's programs: found on this machine, or built once at the pins and cached by version."""

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

DAPRD_VERSION: Final = "1.18.0"
CONTROL_VERSION: Final = "1.18.3"
OPENFGA_VERSION: Final = "1.22.1"
HELM_VERSION: Final = "3.20.2"
OLDEST_DAPRD: Final = (1, 18)
GO_HELP: Final = (
    "Go 1.24 or later is needed to build {}: install it from https://go.dev/dl/ and put it on PATH"
)
_MODULE: Final = "github.com/dapr/dapr"
_OPENFGA: Final = "github.com/openfga/openfga"
_HELM: Final = "helm.sh/helm/v3"
_TICK_SECONDS: Final = 10

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Binaries:
    """Finds each program, building what is missing; two commands at once build it once."""

    cache: Path
    edge_source: Path
    progress: Progress

    def dapr_definitions(self) -> Path:
        """The folder with what Kubernetes is told of Dapr's kinds of resources."""
        source = _module(f"{_MODULE}@v{CONTROL_VERSION}", "dapr", self.progress)
        return source / "charts" / "dapr" / "crds"

    def daprd(self) -> Path:
        """An installed daprd of 1.18 or later, else one built at the pin."""
        return installed_daprd() or self._dapr("daprd", DAPRD_VERSION, "-tags", "stablecomponents")

    def placement(self) -> Path:
        """The placement service at its pin."""
        return self._dapr("placement", CONTROL_VERSION)

    def scheduler(self) -> Path:
        """The scheduler service at its pin."""
        return self._dapr("scheduler", CONTROL_VERSION)

    def openfga(self) -> Path:
        """OpenFGA's server at its pin."""

        def build(output: Path) -> None:
            source = _module(f"{_OPENFGA}@v{OPENFGA_VERSION}", "openfga", self.progress)
            stamp = f"-s -w -X {_OPENFGA}/internal/build.Version={OPENFGA_VERSION}"
            flags = ["-ldflags", stamp]
            _go_build("openfga", source, output, flags, "./cmd/openfga", self.progress)

        return self._cached("openfga", self.cache / f"openfga-{OPENFGA_VERSION}", build)

    def helm(self) -> Path:
        """Helm at its pin; only the tests of the chart need it."""

        def build(output: Path) -> None:
            source = _module(f"{_HELM}@v{HELM_VERSION}", "helm", self.progress)
            stamp = f"-s -w -X {_HELM}/internal/version.version=v{HELM_VERSION}"
            _go_build("helm", source, output, ["-ldflags", stamp], "./cmd/helm", self.progress)

        return self._cached("helm", self.cache / f"helm-{HELM_VERSION}", build)

    def sentry(self) -> Path:
        """The sentry service at its pin; only the secure profile needs it."""
        return self._dapr("sentry", CONTROL_VERSION)

    def edge(self) -> Path:
        """The edge, built from its sources; a change in them makes another build."""
        target = self.cache / f"edge-{source_hash(self.edge_source)}"

        def build(output: Path) -> None:
            _go_build(
                "edge",
                self.edge_source,
                output,
                ["-trimpath", "-ldflags", "-s -w"],
                ".",
                self.progress,
            )

        return self._cached("edge", target, build)

    def missing(self) -> list[str]:
        """The programs that would have to be built."""
        wanted = {
            "placement": self.cache / f"placement-{CONTROL_VERSION}",
            "scheduler": self.cache / f"scheduler-{CONTROL_VERSION}",
            "openfga": self.cache / f"openfga-{OPENFGA_VERSION}",
            "edge": self.cache / f"edge-{source_hash(self.edge_source)}",
        }
        if installed_daprd() is None:
            wanted["daprd"] = self.cache / f"daprd-{DAPRD_VERSION}"
        return [name for name, path in wanted.items() if not path.exists()]

    def _dapr(self, name: str, version: str, *flags: str) -> Path:
        def build(output: Path) -> None:
            stamp = f"-s -w -X {_MODULE}/pkg/buildinfo.version={version}"
            with _dapr_source(version, name, self.progress) as source:
                _go_build(
                    name,
                    source,
                    output,
                    [*flags, "-ldflags", stamp],
                    f"./cmd/{name}",
                    self.progress,
                )

        return self._cached(name, self.cache / f"{name}-{version}", build)

    def _cached(self, name: str, target: Path, build: Callable[[Path], None]) -> Path:
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _build_lock(target, self.progress):
            if not target.exists():
                began = time.monotonic()
                self.progress(f"building {target.name} (once; minutes when Go's cache is cold)")
                staged = target.with_name(f".{target.name}.{os.getpid()}")
                build(staged)
                staged.replace(target)
                self.progress(f"built {target.name} in {time.monotonic() - began:.0f} s")
        return target


def default_cache() -> Path:
    """Where built programs are kept, for every checkout of this user."""
    root = os.environ.get("YOCASO_CACHE") or str(Path.home() / ".cache" / "yocaso")
    return Path(root).expanduser() / "bin"


def installed_daprd() -> Path | None:
    """A daprd on PATH or where `dapr init` puts it, if it is recent enough."""
    for candidate in (shutil.which("daprd"), str(Path.home() / ".dapr" / "bin" / "daprd")):
        if candidate and Path(candidate).exists():
            version = daprd_version(Path(candidate))
            if version and version >= OLDEST_DAPRD:
                return Path(candidate)
    return None


def daprd_version(path: Path) -> tuple[int, int] | None:
    """What a daprd says that it is."""
    try:
        output = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"v?(\d+)\.(\d+)", output.stdout.strip())
    return (int(found[1]), int(found[2])) if found else None


def source_hash(folder: Path) -> str:
    """A short hash over the Go sources and what is embedded in them."""
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
            progress(f"waiting for another command that builds {target.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _dapr_source(version: str, name: str, progress: Progress) -> Iterator[Path]:
    """The verified module; for daprd, a copy that lets the name resolver on SQLite into the stable build.

    mDNS, the only other resolver there, would join two stacks on one machine, and asks the network.
    """
    source = _module(f"{_MODULE}@v{version}", name, progress)
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


def _module(module: str, name: str, progress: Progress) -> Path:
    """The verified sources of a module at a version."""
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
                output, errors = process.communicate(timeout=_TICK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                progress(f"building {name}: {time.monotonic() - began:.0f} s so far")
            except BaseException:
                process.terminate()
                raise
    if process.returncode != 0:
        raise StackError(f"building {name} failed: go {arguments[0]}\n{errors[-2000:].strip()}")
    return output
