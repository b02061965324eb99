"""`Stack`: the local platform as one object with a lifecycle. Used by `yocaso up` and by the tests."""

import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.cli.stack import infra, postgres
from services.cli.stack.apps import AppEntry, AppHost, HostPorts, Template, read_template
from services.cli.stack.binaries import Binaries, Progress, default_cache
from services.cli.stack.environment import Environment
from services.cli.stack.errors import StackError
from services.cli.stack.names import has_a_name, with_registry
from services.cli.stack.ports import LOOPBACK, PortPlan, require_free
from services.cli.stack.process import ProcessSpec, Stage
from services.cli.stack.reclaim import reclaim
from services.cli.stack.state import StateFolder, send
from services.cli.stack.supervisor import Supervisor
from services.cli.stack.trust import Trust
from services.cli.stack.waiting import wait_until

_LAST_LINES: Final = 5
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 12.0
EDGE_COMMAND: Final = "yocaso-edge"
"""In `dapr.yaml`: the edge's program, which is found or built."""


def _silent(_: str) -> None:
    pass


class Stack:
    """Servers, and apps with their sidecars, under a supervisor.

    `env` adds variables by process name (`llm`, `llm-daprd`, `model`), `*` to every app; a `model` is started when
    `with_model`. Processes named in `unsupervised` stay down when they die. Start it from a thread that lives as
    long as the stack shall: the kernel stops everything when that thread ends.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        port_offset: int = 0,
        dapr_yaml: Path = Path("dapr.yaml"),
        env: Mapping[str, Mapping[str, str]] | None = None,
        unsupervised: Collection[str] = (),
        with_model: bool = False,
        edge_port: int | None = None,
        secure: bool = False,
        progress: Progress = _silent,
    ) -> None:
        self.state = StateFolder(Path(state_dir))
        self.ports = PortPlan(port_offset)
        self.supervisor = Supervisor(self.state)
        self._environment: Environment | None = None
        self._registry = self.state.data / "names.db"
        self._dapr_yaml = Path(dapr_yaml).absolute()
        self._env = {name: dict(values) for name, values in (env or {}).items()}
        self._unsupervised = frozenset(unsupervised)
        self._with_model = with_model
        self._edge_port = edge_port
        self._secure = secure
        self._trust: Trust | None = None
        self._progress = progress
        self._binaries = Binaries(
            default_cache(), self._dapr_yaml.parent / "services" / "edge", progress
        )
        self._template: Template | None = None
        self._specs: dict[str, ProcessSpec] = {}
        self._hosts: dict[str, AppHost] = {}

    # --- lifecycle ---

    def start(self, *, apps: bool = True, seconds: float = START_SECONDS) -> None:
        """Start the servers and then the apps; return when every process answers its health check."""
        self.prepare(apps=apps)
        try:
            self.launch(seconds)
        except BaseException:
            self.stop()
            raise

    def prepare(self, *, apps: bool = True) -> None:
        """Take the state folder, end what an earlier command left, find or build programs, check ports."""
        self._template = read_template(self._dapr_yaml)
        self.state.create()
        self.state.lock()
        try:
            left = reclaim(self.state)
            if left:
                self._progress(f"ended what an earlier command left: {', '.join(left)}")
            self._environment = Environment.prepare(
                self.state,
                self.ports,
                [app.app_id for app in self._template.apps],
                with_model=self._with_model,
            )
            if self._secure:
                app_ids = [app.app_id for app in self._template.apps]
                self._trust = Trust.prepare(self.state, self.ports, app_ids)
            self._specs = {spec.name: spec for spec in self._all_specs(self._template, apps)}
            require_free(item for spec in self._specs.values() for item in spec.ports.items())
            self.environment.write_file()
        except BaseException:
            self.state.unlock()
            raise

    def launch(self, seconds: float = START_SECONDS) -> None:
        """Start what was prepared; `stop` it also when this fails."""
        self.supervisor.begin(self._specs.values(), self._unsupervised)
        self._start_stage([Stage.INFRA], seconds)
        self._start_stage([Stage.SIDECARS, Stage.APPS], seconds)

    def link_programs(self) -> None:
        """Put the programs that `dapr.yaml` names where the PATH of `env` finds them."""
        if self._template and any(app.command[0] == EDGE_COMMAND for app in self._template.apps):
            link = self.state.bin / EDGE_COMMAND
            link.unlink(missing_ok=True)
            link.symlink_to(self._binaries.edge())

    def stop(self) -> None:
        """Stop apps, then sidecars, then servers, within 10 s; nothing is left."""
        if self.state.is_locked:
            self.supervisor.end(STOP_SECONDS)
            reclaim(self.state)
            self.state.unlock()

    def __enter__(self) -> "Stack":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- processes ---

    @property
    def names(self) -> list[str]:
        """Every process, in the order of starting."""
        return list(self._specs)

    def spec(self, name: str) -> ProcessSpec:
        """How a process was started."""
        try:
            return self._specs[name]
        except KeyError:
            raise StackError(f"no process {name}; there are {', '.join(self._specs)}") from None

    def process(self, name: str) -> int | None:
        """The pid of a process while it runs."""
        return self.supervisor.pid(name)

    def is_running(self, name: str) -> bool:
        """Whether a process answers its health check."""
        return self.process(name) is not None and self._is_ready(name)

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> int:
        """Signal a process and return its pid. Supervised, it comes back; `wait_gone` proves that it went."""
        pid = self.process(name)
        if pid is None:
            raise StackError(f"{name} does not run")
        send(pid, signal_number)
        return pid

    def wait_gone(self, name: str, pid: int, seconds: float = 10) -> None:
        """Wait until that very process is no more."""
        wait_until(
            lambda: self.process(name) != pid,
            seconds,
            f"process {pid} of {name} to end",
            pause=0.01,
        )

    def pause(self, name: str) -> None:
        """Freeze a process."""
        self.kill(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Unfreeze a process."""
        self.kill(name, signal.SIGCONT)

    def halt(self, name: str) -> None:
        """Stop one process in order and keep it stopped."""
        self.supervisor.stop(name)

    def restart(
        self, name: str, *, env: Mapping[str, str] | None = None, seconds: float = START_SECONDS
    ) -> None:
        """Stop a process if it runs and start it, from now on with more environment if given; wait for it."""
        self.halt(name)
        if env is not None:
            spec = self.spec(name)
            self._specs[name] = replace(spec, env={**spec.env, **env})
            self.supervisor.write_spec(self._specs[name])
        self.supervisor.start(name)
        self.wait_running(name, seconds)

    def wait_running(self, name: str, seconds: float = START_SECONDS) -> None:
        """Wait until a process answers its health check."""
        self._await_ready({name}, seconds, self.is_running)

    def add_replica(
        self, app: str, number: int = 2, *, env: Mapping[str, str] | None = None
    ) -> str:
        """Start another host of an app with its own sidecar; returns its name, such as `llm-2`."""
        entry = self._hosts[app].entry
        name = f"{app}-{number}"
        self._env.setdefault(name, {}).update(env or {})
        host = self._host(entry, name, number)
        for spec in self._host_specs(host):
            require_free((what, port) for what, port in spec.ports.items())
            self._specs[spec.name] = spec
            self.supervisor.add(spec, supervised=spec.name not in self._unsupervised)
            self.supervisor.start(spec.name)
        for spec_name in (name, f"{name}-daprd"):
            self.wait_running(spec_name)
        return name

    # --- addresses ---

    def url(self, name: str) -> str:
        """Where a process is reached: an app's own port, a sidecar's HTTP port, a server's port."""
        spec = self.spec(name)
        if name == "postgres":
            return self.database_url()
        if name == "valkey":
            return self.environment.valkey_url
        return f"http://{LOOPBACK}:{next(iter(spec.ports.values()))}"

    @property
    def environment(self) -> Environment:
        """What the apps are told; known once the stack is prepared."""
        if self._environment is None:
            raise StackError("the stack is not started")
        return self._environment

    def database_url(self) -> str:
        """The database of this state folder, whether the stack runs or not."""
        return self.state.load_secrets()["postgresUrl"]

    def app_token(self, app: str) -> str:
        """What an app demands of its caller (`dapr-api-token`)."""
        return self._hosts[app].app_token

    def api_token(self, app: str) -> str:
        """What an app's sidecar demands of its caller (`dapr-api-token`)."""
        return self._hosts[app].api_token

    def log(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.state.logs / f"{name}.log"

    @property
    def apps(self) -> list[str]:
        """Every app's host."""
        return list(self._hosts)

    # --- preparation ---

    def _all_specs(self, template: Template, apps: bool) -> list[ProcessSpec]:
        specs = infra.server_specs(
            self.state, self.ports, self.environment.secrets, self._binaries, self._trust
        )
        if self._with_model:
            specs.append(infra.model_spec(self.state, self.ports.of("model")))
        specs = [replace(spec, env={**spec.env, **self._env.get(spec.name, {})}) for spec in specs]
        self._hosts = {}
        for entry in template.apps if apps else ():
            specs += self._host_specs(self._host(entry, entry.app_id, 1))
        return specs

    def _host(self, entry: AppEntry, name: str, number: int) -> AppHost:
        edge_port = self._edge_port if entry.app_id == "edge" else None
        host = AppHost(
            entry=entry,
            ports=HostPorts.of(entry, self.ports, number, edge_port),
            name=name,
            app_token=self.environment.secrets[f"{entry.app_id}AppToken"],
            api_token=self.environment.secrets[f"{entry.app_id}ApiToken"],
            root=self._dapr_yaml.parent,
        )
        self._hosts[name] = host
        return host

    def _host_specs(self, host: AppHost) -> Sequence[ProcessSpec]:
        app = host.app(self.environment.for_app(host.entry.app_id))
        if app.argv[0] == EDGE_COMMAND:
            env = {**app.env, "EDGE_PORT": app.env["APP_PORT"]}  # whatever the user's shell says
            app = replace(app, argv=(str(self._binaries.edge()), *app.argv[1:]), env=env)
        configs = self._configs(host.entry)
        sidecar = host.sidecar(
            self._binaries.daprd(), self.ports, configs, self.environment.for_sidecar()
        )
        if self._trust is not None:
            sidecar = self._secured(sidecar, host.entry.app_id, self._trust)
        app_env = {**app.env, **self._env.get("*", {}), **self._env.get(host.name, {})}
        sidecar_env = {**sidecar.env, **self._env.get(sidecar.name, {})}
        return replace(app, env=app_env), replace(sidecar, env=sidecar_env)

    def _secured(self, sidecar: ProcessSpec, app_id: str, trust: Trust) -> ProcessSpec:
        policies = ("--resources-path", str(self._policies))
        return replace(
            sidecar,
            argv=(*sidecar.argv, *trust.sidecar_arguments(), *policies),
            env={**sidecar.env, **trust.environment(app_id)},
        )

    @property
    def _policies(self) -> Path:
        return self._dapr_yaml.parent / "components" / "configuration" / "access"

    def _configs(self, entry: AppEntry) -> list[Path]:
        if entry.config_file_path is None:
            return []
        policy = [self._policies / f"{entry.app_id}.yaml"] if self._trust is not None else []
        path = self._dapr_yaml.parent / entry.config_file_path
        rendered = self.state.run / f"config-{entry.app_id}.yaml"
        traced = bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
        return [with_registry(path, self._registry, rendered, traced=traced), *policy]

    # --- starting ---

    def _start_stage(self, stages: Collection[Stage], seconds: float) -> None:
        names = [name for name, spec in self._specs.items() if spec.stage in stages]
        if Stage.SIDECARS in stages and not self._registry.exists():
            self._start_first_sidecar(names, seconds)
        for name in names:
            self.supervisor.start(name)
        self._await_ready(set(names), seconds, self._is_ready)

    def _start_first_sidecar(self, names: Sequence[str], seconds: float) -> None:
        """Sidecars that create the registry of names at once trip over each other, and one stays unknown."""
        first = next((name for name in names if self._specs[name].stage is Stage.SIDECARS), None)
        if first is not None:
            self.supervisor.start(first)
            what = f"{first} to create the registry of names"
            wait_until(lambda: has_a_name(self._registry), seconds, what, self._require_supervisor)

    def _await_ready(self, waiting: set[str], seconds: float, holds: Callable[[str], bool]) -> None:
        def all_ready() -> bool:
            waiting.difference_update([name for name in waiting if holds(name)])
            return not waiting

        try:
            wait_until(all_ready, seconds, "every process to be ready", self._require_supervisor)
        except StackError as error:
            raise StackError(
                "\n".join([str(error), *map(self._last_words, sorted(waiting))])
            ) from None

    def _is_ready(self, name: str) -> bool:
        spec = self._specs[name]
        if name == "postgres":
            return postgres.is_accepting(spec.ports["postgres"])
        return spec.ready.holds()

    def _require_supervisor(self) -> None:
        if not self.supervisor.is_alive():
            raise StackError(f"the supervisor ended; see {self.supervisor.log}")

    def _last_words(self, name: str) -> str:
        try:
            last = self.log(name).read_text(errors="replace").splitlines()[-_LAST_LINES:]
        except OSError:
            last = []
        return "\n    ".join([f"  {name} is not ready; the end of {self.log(name)}:", *last])
