"""The `env` file gives a shell what `dapr run` and its apps need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.stack.environment import COMMON, Environment, api_token_name, app_token_name
from services.cli.stack.ports import PortPlan
from services.cli.stack.state import StateFolder
from services.contracts.apps import APPS
from tests.requirements import requirement

HOSTILE = """http://127.0.0.1:1/"'`id`$(id)$HOME\\v1"""


def sourced(state: StateFolder) -> dict[str, str]:
    """The environment of a shell after it read the file."""
    script = '. "$1" && exec "$2" -c "import json, os; print(json.dumps(dict(os.environ)))"'
    arguments = ["sh", "-euc", script, "sh", str(state.env_file), sys.executable]
    done = subprocess.run(
        arguments, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@requirement("stack:dapr-run")
def test_a_shell_reads_every_value_unchanged_and_keeps_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_BASE_URL", HOSTILE)
    state = StateFolder(tmp_path / "a folder with $HOME")
    state.create()
    environment = Environment.prepare(state, PortPlan(), [app.id for app in APPS], with_model=False)
    environment.write_file()
    found = sourced(state)
    wanted = {name: value for app in APPS for name, value in environment.for_app(app.id).items()}
    del wanted["PATH"]
    assert {name: found[name] for name in wanted} == wanted
    assert found["LLM_BASE_URL"] == HOSTILE
    assert found["DAPR_RUNTIME_PATH"] == str(state.path)
    assert found["APP_API_TOKEN"] == environment.secrets[app_token_name(COMMON)]
    assert found["DAPR_API_TOKEN"] == environment.secrets[api_token_name(COMMON)]
    assert found["PATH"] == f"{Path(sys.executable).parent}:{state.bin}:/usr/bin:/bin"
