"""`yocaso sidecar`: how a sidecar of another app is started beside a running stack."""

import json
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from joserfc import jwt
from joserfc.jwk import KeySet

from services.cli.sidecar import prepare_sidecar, run_sidecar
from services.cli.stack.certificates import CertificateAuthority, enrol
from services.cli.stack.errors import StackError
from services.cli.stack.ports import PortPlan
from services.cli.stack.state import StateFolder
from tests.requirements import requirement
from tests.support.port_offsets import PORTS

PORT = 17_200
MTLS = ["--enable-mtls", "--sentry-address", "127.0.0.1:6080", "--control-plane-trust-domain", "d"]


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """The folder of a stack that has started."""
    folder = StateFolder(tmp_path / "state")
    folder.create()
    names = {"component": "sqlite", "configuration": {"connectionString": "/state/names.db"}}
    config = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Configuration",
        "metadata": {"name": "edge"},
        "spec": {"nameResolution": names, "api": {"allowed": []}},
    }
    (folder.run / "config-edge.yaml").write_text(yaml.safe_dump(config))
    launch(folder, [])
    return folder


def launch(folder: StateFolder, mtls: list[str]) -> None:
    env = {"NAMESPACE": "default", "DAPR_TRUST_ANCHORS": "pem", "DAPR_API_TOKEN": "of the edge"}
    spec = {"argv": ["/bin/daprd", "--app-id", "edge", *mtls], "env": env}
    (folder.run / "edge-daprd.json").write_text(json.dumps(spec))


@requirement("dapr:sidecar")
def test_it_finds_the_apps_of_the_stack_and_has_no_secret_of_it(state: StateFolder) -> None:
    sidecar = prepare_sidecar(state, "shop", PORT, None)
    options = dict(zip(sidecar.argv[1::2], sidecar.argv[2::2], strict=True))
    assert sidecar.argv[0] == "/bin/daprd"
    assert options["--app-id"] == "shop"
    assert {name: int(value) for name, value in options.items() if name.endswith("-port")} == {
        "--dapr-http-port": 17_200,
        "--dapr-grpc-port": 18_200,
        "--dapr-internal-grpc-port": 19_200,
        "--metrics-port": 23_200,
    }
    config = yaml.safe_load(Path(options["--config"]).read_text())
    assert config["metadata"] == {"name": "shop"}
    names = {"component": "sqlite", "configuration": {"connectionString": "/state/names.db"}}
    assert config["spec"] == {"nameResolution": names}
    assert sidecar.env == {"DAPR_HOST_IP": "127.0.0.1"}


@requirement("dapr:sidecar")
def test_an_app_that_is_to_be_called_names_its_port(state: StateFolder) -> None:
    argv = prepare_sidecar(state, "shop", PORT, 8123).argv
    assert argv[argv.index("--app-port") + 1] == "8123"


@requirement("dapr:sidecar")
def test_with_certificates_it_gets_an_identity_that_outlives_a_start_of_the_stack(
    state: StateFolder,
) -> None:
    authority = CertificateAuthority.prepare(state, PortPlan(), ["edge"])
    launch(state, MTLS)
    sidecar = prepare_sidecar(state, "shop", PORT, None)
    assert sidecar.argv[-len(MTLS) :] == MTLS
    token = Path(sidecar.env.pop("DAPR_SENTRY_TOKEN_FILE"))
    expected = {"NAMESPACE": "default", "DAPR_TRUST_ANCHORS": "pem", "DAPR_HOST_IP": "127.0.0.1"}
    assert sidecar.env == expected
    assert stat.S_IMODE(token.stat().st_mode) == 0o600

    def subjects() -> set[str]:
        keys = KeySet.import_key_set(json.loads((authority.folder / "jwks.json").read_text()))
        written = (authority.tokens / "edge", token)
        return {
            jwt.decode(each.read_text(), keys, algorithms=["ES256"]).claims["sub"]
            for each in written
        }

    both = {"spiffe://public/ns/default/edge", "spiffe://public/ns/default/shop"}
    assert subjects() == both
    prepare_sidecar(state, "shop", PORT, None)
    assert subjects() == both
    CertificateAuthority.prepare(state, PortPlan(), ["edge"])
    assert subjects() == both


@requirement("dapr:sidecar")
@pytest.mark.parametrize(
    "name", ["", "Shop", "../edge", "edge", "llm", "placement", "scheduler", "a" * 59]
)
def test_an_id_that_is_invalid_or_the_platforms_is_refused(state: StateFolder, name: str) -> None:
    CertificateAuthority.prepare(state, PortPlan(), ["edge"])
    launch(state, MTLS)
    with pytest.raises(ValueError, match="app"):
        prepare_sidecar(state, name, PORT, None)
    assert {path.name for path in state.run.iterdir() if "sidecar" in path.name} == set()


@requirement("dapr:sidecar")
def test_without_a_stack_it_says_what_to_start(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "empty")
    with pytest.raises(StackError, match="run `yocaso up`"):
        prepare_sidecar(folder, "shop", PORT, None)


@requirement("dapr:sidecar")
@pytest.mark.loopback
def test_a_port_in_use_is_named(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    http_port = PORTS["unit test of a sidecar"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", http_port + 2_000))
        taken.listen()
        with pytest.raises(SystemExit, match="1"):
            run_sidecar(state.path, "shop", http_port, None)
    said = capsys.readouterr().err
    assert f"port {http_port + 2_000} (dapr-internal-grpc-port) is in use" in said
    assert "--http-port" in said


@requirement("dapr:sidecar")
def test_apps_that_enrol_at_the_same_time_all_get_identities(state: StateFolder) -> None:
    authority = CertificateAuthority.prepare(state, PortPlan(), ["edge"])
    apps = [f"shop-{number}" for number in range(16)]
    with ThreadPoolExecutor(len(apps)) as pool:
        list(pool.map(lambda app: enrol(state, app), apps))
    keys = KeySet.import_key_set(json.loads((authority.folder / "jwks.json").read_text()))
    for app in apps:
        claims = jwt.decode((authority.tokens / app).read_text(), keys, algorithms=["ES256"]).claims
        assert claims["sub"] == f"spiffe://public/ns/default/{app}"
