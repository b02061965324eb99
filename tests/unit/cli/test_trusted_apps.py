"""The operator's trusted back ends reach every app of the local stack."""

from pathlib import Path

from services.cli.stack.environment import Environment
from services.cli.stack.policies import trusted_apps
from services.cli.stack.ports import PortPlan
from services.cli.stack.state import StateFolder
from services.contracts.apps import APPS
from services.kit.settings import TRUSTED_APPS
from tests.requirements import requirement


@requirement("access:trusted-apps")
def test_every_app_and_the_env_file_name_the_trusted_back_ends(tmp_path: Path) -> None:
    named = trusted_apps({TRUSTED_APPS: " web, backend"})
    assert named == ("backend", "web")
    assert trusted_apps({}) == ()
    state = StateFolder(tmp_path)
    state.create()
    environment = Environment.prepare(
        state, PortPlan(), [app.id for app in APPS], with_model=False, trusted_apps=named
    )
    for app in APPS:
        assert environment.for_app(app.id)[TRUSTED_APPS] == "backend,web"
    environment.write_file()
    assert f'export {TRUSTED_APPS}="backend,web"\n' in state.env_file.read_text()
