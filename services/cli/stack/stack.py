"""`Stack` starts, controls and stops the processes of the local platform, for `yocaso up` and the tests."""

import os
import signal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from services.cli.stack import dapr_run, infra, postgres
from services.cli.stack.apps import AppHost
from services.cli.stack.binaries import Binaries, default_cache
from services.cli.stack.builds import Builds
from services.cli.stack.certificates import CertificateAuthority
from services.cli.stack.environment import MODEL, Environment, api_token_name, app_token_name
from services.cli.stack.errors import StackError
from services.cli.stack.listener import Listener, Silent
from services.cli.stack.name_resolution import render_configuration
from services.cli.stack.policies import render_policy
from services.cli.stack.ports import LOOPBACK, PortPlan, require_free
from services.cli.stack.process import ProcessSpec
from services.cli.stack.reclaim import reclaim
from services.cli.stack.startup import Startup
from services.cli.stack.state import StateFolder, send
from services.cli.stack.supervisor import Supervisor
from services.cli.stack.template import AppEntry, Template, read_template
from services.cli.stack.waiting import wait_until
from services.contracts.apps import EDGE

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 12.0
EDGE_COMMAND: Final = EDGE.command[0]
"""The edge's program in `dapr.yaml`; replaced by the path of the built one."""


class Stack:
    """Servers, apps and sidecars under supervisord.

    `env` adds variables by process name (`llm`, `llm-daprd`, `model`), `*` to every app. `with_model` starts the local
    model server. Processes in `unsupervised` are not restarted. `trusted_apps` are back ends that may call for any user;
    with `secure`, policies and certificates are theirs too. `listener` gets the states of processes. The kernel stops
    the stack when the thread that started it ends.
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
        trusted_apps: Collection[str] = (),
        listener: Listener | None = None,
    ) -> None:
        self.state = StateFolder(Path(state_dir))
        self.ports = PortPlan(port_offset)
        self.supervisor = Supervisor(self.state)
        self._environment: Environment | None = None
        self._registry = self.state.names
        self._dapr_yaml = Path(dapr_yaml).absolute()
        self._env = {name: dict(values) for name, values in (env or {}).items()}
        self._unsupervised = frozenset(unsupervised)
        self._with_model = with_model
        self._edge_port = edge_port
        self._secure = secure
        self._trusted_apps = tuple(trusted_apps)
        self._authority: CertificateAuthority | None = None
        self._listener = listener or Silent()
        edge_source = self._dapr_yaml.parent / EDGE.folder
        self._binaries = Binaries(default_cache(), edge_source, self._listener.report)
        self._programs: dict[str, Path] = {}
        self._builds = Builds([], self._listener.report)
        self._template: Template | None = None
        self._specs: dict[str, ProcessSpec] = {}
        self._hosts: dict[str, AppHost] = {}

    # --- lifecycle ---

    def start(self, *, apps: bool = True, seconds: float = START_SECONDS) -> None:
        """Start the servers, then sidecars and apps; return when every process is ready."""
        self.prepare(apps=apps)
        try:
            self.launch(seconds)
        except BaseException:
            self.stop()
            raise

    def prepare(self, *, apps: bool = True, link: bool = False) -> None:
        """Lock the state folder, end leftover processes, check ports, find the programs that `launch` has to build.

        With `link` it also builds those of `link_programs`.
        """
        self._template = read_template(self._dapr_yaml)
        self.state.create()
        self.state.lock()
        try:
            if leftovers := reclaim(self.state):
                self._listener.report(
                    f"ended processes of an earlier command: {', '.join(leftovers)}"
                )
            app_ids = [app.app_id for app in self._template.apps]
            self._environment = Environment.prepare(
                self.state,
                self.ports,
                app_ids,
                with_model=self._with_model,
                trusted_apps=self._trusted_apps,
            )
            if self._secure:
                certified = [*app_ids, *self._trusted_apps]
                self._authority = CertificateAuthority.prepare(self.state, self.ports, certified)
            self._specs = {spec.name: spec for spec in self._all_specs(self._template, apps)}
            require_free(item for spec in self._specs.values() for item in spec.ports.items())
            self.environment.write_file()
            self._find_programs(self._linked().values() if link else ())
        except BaseException:
            self.state.unlock()
            raise

    def launch(self, seconds: float = START_SECONDS) -> None:
        """Build missing programs and start the prepared processes; on failure call `stop`.

        A process starts as soon as its program is there; `seconds` is its limit from then on.
        """
        self.supervisor.begin(self._specs.values(), self._unsupervised)
        self._builds.begin()
        self._startup(seconds, self._passes_probe, self._builds).run(self._registry)

    def link_programs(self) -> None:
        """Place daprd and the edge where `dapr run` finds them after the `env` file was sourced."""
        linked = self._linked().items()
        programs = {link: self._binaries.program(program) for link, program in linked}
        dapr_run.link_programs(self.state, programs)

    def _linked(self) -> dict[str, str]:
        """The programs that `dapr run` needs, by the name of their link."""
        apps = self._template.apps if self._template else ()
        uses_edge = any(app.command[0] == EDGE_COMMAND for app in apps)
        return {dapr_run.DAPRD: "daprd"} | ({EDGE_COMMAND: EDGE.id} if uses_edge else {})

    def stop(
        self,
        waiting: Callable[[Sequence[str]], None] | None = None,
        at_once: Callable[[], bool] | None = None,
    ) -> None:
        """Stop apps, then sidecars, then servers; kill what runs after 12 s, or when `at_once` becomes true.

        `waiting` is called with the names of processes that still run, when fewer do.
        """
        if not self.state.is_locked:
            return
        self._builds.cancel()
        self.supervisor.shut_down(STOP_SECONDS, waiting, at_once)
        reclaim(self.state)
        self._builds.close()
        self.state.unlock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- processes ---

    @property
    def names(self) -> list[str]:
        """Process names in start order."""
        return list(self._specs)

    def spec(self, name: str) -> ProcessSpec:
        try:
            return self._specs[name]
        except KeyError:
            raise StackError(f"no process {name}: choose of {', '.join(self._specs)}") from None

    def pid(self, name: str) -> int | None:
        """The pid of a process, if it runs."""
        return self.supervisor.pid(name)

    def is_ready(self, name: str) -> bool:
        """Whether a process runs and passes its readiness probe; a paused process fails it."""
        return self.pid(name) is not None and self._passes_probe(name)

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> int:
        """Signal a process and return its pid, for `wait_exited`; a supervised process is restarted."""
        pid = self.pid(name)
        if pid is None:
            raise StackError(f"{name} is not running; see {self.log(name)}")
        send(pid, signal_number)
        return pid

    def wait_exited(self, name: str, pid: int, seconds: float = 10) -> None:
        """Wait until this pid has ended, whether or not the process was restarted."""
        what = f"process {pid} of {name} to end"
        wait_until(lambda: self.pid(name) != pid, seconds, what, interval=0.01)

    def pause(self, name: str) -> None:
        """Send SIGSTOP."""
        self.kill(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Send SIGCONT."""
        self.kill(name, signal.SIGCONT)

    def halt(self, *names: str) -> None:
        """Stop processes at once by their stop signals and keep them stopped."""
        self.supervisor.stop(*names)

    def kill_and_halt(self, name: str) -> None:
        """SIGKILL a process and keep it stopped."""
        pid = self.kill(name, signal.SIGSTOP)  # so that it never handles the stop signal
        self.supervisor.begin_stop(name)
        send(pid, signal.SIGKILL)
        self.wait_exited(name, pid)

    def restart(
        self, name: str, *, env: Mapping[str, str] | None = None, seconds: float = START_SECONDS
    ) -> None:
        """Restart a process and wait until it is ready; `env` extends its environment permanently."""
        self.halt(name)
        if env is not None:
            spec = self.spec(name)
            self._specs[name] = replace(spec, env={**spec.env, **env})
            self.supervisor.write_spec(self._specs[name])
        self.supervisor.start(name)
        self.wait_ready(name, seconds=seconds)

    def wait_ready(self, *names: str, seconds: float = START_SECONDS) -> None:
        """Wait until all processes are ready."""
        self._startup(seconds, self.is_ready).await_ready(names)

    def add_replica(
        self, app: str, number: int = 2, *, env: Mapping[str, str] | None = None
    ) -> str:
        """Start another host of an app with its sidecar; returns its name, such as `llm-2`."""
        entry = self._hosts[app].entry
        name = f"{app}-{number}"
        self._env.setdefault(name, {}).update(env or {})
        host = self._host(entry, name, number)
        for spec in self._host_specs(host):
            require_free((what, port) for what, port in spec.ports.items())
            self._specs[spec.name] = spec
            self.supervisor.add(spec, supervised=spec.name not in self._unsupervised)
            self.supervisor.start(spec.name)
        self.wait_ready(name, f"{name}-daprd")
        return name

    # --- addresses ---

    def url(self, name: str) -> str:
        """The URL of an app, of a sidecar's HTTP port, or of a server."""
        spec = self.spec(name)
        if name == "postgres":
            return self.database_url()
        if name == "valkey":
            return self.environment.valkey_url
        return f"http://{LOOPBACK}:{next(iter(spec.ports.values()))}"

    @property
    def environment(self) -> Environment:
        """The environment variables of the stack, known after `prepare`."""
        if self._environment is None:
            raise StackError("the stack is not prepared: call prepare() or start() first")
        return self._environment

    def database_url(self) -> str:
        """The Postgres URL of this state folder; the stack need not run."""
        return self.state.load_secrets()["postgresUrl"]

    def app_token(self, app: str) -> str:
        """The `dapr-api-token` that an app requires."""
        return self._hosts[app].app_token

    def api_token(self, app: str) -> str:
        """The `dapr-api-token` that an app's sidecar requires."""
        return self._hosts[app].api_token

    def log(self, name: str) -> Path:
        return self.state.logs / f"{name}.log"

    @property
    def apps(self) -> list[str]:
        return list(self._hosts)

    # --- preparation ---

    def _all_specs(self, template: Template, apps: bool) -> list[ProcessSpec]:
        specs = infra.server_specs(
            self.state, self.ports, self.environment.secrets, self._binaries, self._authority
        )
        if self._with_model:
            specs.append(infra.model_spec(self.state, self.ports.of(MODEL)))
        if self.environment.with_objects:
            port, secrets = self.ports.of("versitygw"), self.environment.secrets
            program = self._binaries.path("versitygw")
            specs.append(infra.objects_spec(self.state, port, secrets, program))
        specs = [replace(spec, env={**spec.env, **self._env.get(spec.name, {})}) for spec in specs]
        self._hosts = {}
        for entry in template.apps if apps else ():
            specs += self._host_specs(self._host(entry, entry.app_id, 1))
        return specs

    def _host(self, entry: AppEntry, name: str, number: int) -> AppHost:
        app_port = self._edge_port if entry.app_id == EDGE.id else None
        host = AppHost(
            entry=entry,
            ports=entry.ports.of_replica(number, self.ports, app_port),
            name=name,
            app_token=self.environment.secrets[app_token_name(entry.app_id)],
            api_token=self.environment.secrets[api_token_name(entry.app_id)],
        )
        self._hosts[name] = host
        return host

    def _host_specs(self, host: AppHost) -> Sequence[ProcessSpec]:
        app = host.app(self.environment.for_app(host.entry.app_id))
        if app.argv[0] == EDGE_COMMAND:
            env = {**app.env, "EDGE_PORT": app.env["APP_PORT"]}  # overrides the shell's
            app = replace(app, argv=(str(self._binaries.path("edge")), *app.argv[1:]), env=env)
        configs = self._configs(host.entry)
        sidecar = host.sidecar(
            self._binaries.path("daprd"), self.ports, configs, self.environment.for_sidecar()
        )
        if self._authority is not None:
            sidecar = replace(
                sidecar,
                argv=(
                    *sidecar.argv,
                    *self._authority.sidecar_arguments(),
                    *("--resources-path", str(self._policies)),
                ),
                env={**sidecar.env, **self._authority.environment(host.entry.app_id)},
            )
        app_env = {**app.env, **self._env.get("*", {}), **self._env.get(host.name, {})}
        sidecar_env = {**sidecar.env, **self._env.get(sidecar.name, {})}
        return replace(app, env=app_env), replace(sidecar, env=sidecar_env)

    @property
    def _policies(self) -> Path:
        return self._dapr_yaml.parent / "components" / "configuration" / "access"

    def _configs(self, entry: AppEntry) -> list[Path]:
        if entry.config_file_path is None:
            return []
        policy = [self._policy(entry.app_id)] if self._authority is not None else []
        path = Path(entry.config_file_path)
        rendered = self.state.run / f"config-{entry.app_id}.yaml"
        traced = bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
        return [render_configuration(path, self._registry, rendered, traced=traced), *policy]

    def _policy(self, app_id: str) -> Path:
        committed = self._policies / f"{app_id}.yaml"
        if not self._trusted_apps:
            return committed
        rendered = self.state.run / f"access-{app_id}.yaml"
        return render_policy(committed, app_id, self._trusted_apps, rendered)

    # --- starting ---

    def _find_programs(self, more: Iterable[str]) -> None:
        self._programs = self._binaries.paths()
        arguments = {word for spec in self._specs.values() for word in spec.argv}
        needed = [name for name, path in self._programs.items() if str(path) in arguments]
        self._builds = self._binaries.builds(dict.fromkeys([*needed, *more]))
        self._builds.require_go()

    def _startup(
        self, seconds: float, is_ready: Callable[[str], bool], builds: Builds | None = None
    ) -> Startup:
        return Startup(
            self._specs,
            self.supervisor,
            builds or Builds([], self._listener.report),
            self._programs,
            self._listener,
            is_ready,
            self.log,
            seconds,
        )

    def _passes_probe(self, name: str) -> bool:
        spec = self._specs[name]
        if name == "postgres":
            return postgres.is_accepting(spec.ports["postgres"])
        return spec.ready.is_ready()
