"""`python -m services.codegen.new_app NAME` writes a new app that runs, with its tests: `poe new-app NAME`.

Its folders are all that is written; what follows from its manifest is emitted by `poe emit`.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Final

from services.codegen.files import ROOT
from services.contracts.apps import APPS
from services.kit.manifest import APP_PORT_BASE

TEMPLATES: Final = Path(__file__).parent / "templates"
FOLDERS: Final = {
    "contracts": "services/contracts/$app",
    "service": "services/$app",
    "unit": "tests/unit/$app",
    "e2e": "tests/e2e/$app",
}
"""Where the files of each folder of templates go."""
NAME: Final = re.compile(r"[a-z][a-z0-9]{1,30}")
NEXT: Final = """\
wrote {count} files of `{app}` (port {port})
next:
  poe fix                                        emits what follows from the manifest, and formats
  poe test -- tests/unit/{app} tests/e2e/{app}
  yocaso up                                      starts it with the others
Then replace SayHello: contract, route, service, tests. CONTRIBUTING.md has the recipes.
"""


def main(arguments: list[str]) -> int:
    """The exit code: 2 where the name cannot be an app's."""
    parser = argparse.ArgumentParser(
        prog="poe new-app", description="Write a new app that runs, with its tests."
    )
    parser.add_argument("name", help="one lower-case word, plural where there is one: notes")
    app: str = parser.parse_args(arguments).name
    if (problem := _problem(app)) is not None:
        parser.error(problem)
    number = max(each.number for each in APPS) + 1
    written = write(app, number)
    _format(written)
    sys.stdout.write(NEXT.format(count=len(written), app=app, port=APP_PORT_BASE + number))
    return 0


def write(app: str, number: int, root: Path = ROOT) -> list[Path]:
    """Write the files of an app; they are returned."""
    names = {
        "app": app,
        "App": app.capitalize(),
        "APP": app.upper(),
        "service": f"yocaso.{app}.v1.{app.capitalize()}Service",
        "number": str(number),
    }
    written: list[Path] = []
    for source, target in FOLDERS.items():
        folder = root / Template(target).substitute(names)
        folder.mkdir(parents=True)
        texts = {"__init__.py": ""}
        for template in sorted((TEMPLATES / source).glob("*.tmpl")):
            texts[template.stem] = Template(template.read_text()).substitute(names)
        for name, text in texts.items():
            path = folder / name
            path.write_text(text)
            written.append(path)
    return written


def _format(paths: list[Path]) -> None:
    """The order of imports depends on the app's name."""
    for command in (("check", "--fix-only", "--exit-zero", "-q"), ("format", "-q")):
        ruff = (sys.executable, "-m", "ruff", *command, "--no-cache")
        subprocess.run((*ruff, *map(str, paths)), check=True)


def _problem(app: str) -> str | None:
    if not NAME.fullmatch(app):
        return f"{app!r} is not a lower-case word of letters and digits"
    taken = [ROOT / Template(folder).substitute(app=app) for folder in FOLDERS.values()]
    if found := [path for path in taken if path.exists()]:
        return f"{found[0].relative_to(ROOT)} exists already"
    return None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
