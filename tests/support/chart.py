"""Renders the Helm chart with helm and validates it against Dapr's CRDs."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.support.programs import PROGRAMS, ROOT

CHART = ROOT / "charts" / "yocaso"
CONFIGURATIONS = "/apis/dapr.io/v1alpha1/namespaces/{namespace}/configurations/daprsystem"


class Helm:
    """The pinned helm, with a home folder of its own."""

    def __init__(self, home: Path) -> None:
        self._binary = PROGRAMS.program("helm")
        self._env = {"HOME": str(home), "PATH": os.environ["PATH"]}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._binary), *arguments]
        return subprocess.run(
            command, env=self._env, capture_output=True, text=True, check=False, timeout=25
        )

    def template(self, namespace: str, **values: str) -> list[dict[str, Any]]:
        """Render the resources of a release."""
        settings = [f"--set={name}={value}" for name, value in values.items()]
        rendered = self.run("template", "one", str(CHART), f"--namespace={namespace}", *settings)
        assert rendered.returncode == 0, rendered.stderr
        return [one for one in yaml.safe_load_all(rendered.stdout) if one]

    def validators(self) -> dict[tuple[str, str], Draft202012Validator]:
        """Schemas of Dapr's CRDs by apiVersion and kind, made to refuse unknown fields."""
        found: dict[tuple[str, str], Draft202012Validator] = {}
        for file in PROGRAMS.dapr_crds().glob("*.yaml"):
            for definition in filter(None, yaml.safe_load_all(file.read_text())):
                spec = definition["spec"]
                for version in spec["versions"]:
                    schema = _closed(version["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = {"required": ["name", "namespace"]}
                    key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                    found[key] = Draft202012Validator(schema)
        return found


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without additional properties, except where the CRD preserves unknown fields."""
    closed = dict(schema)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            closed[name] = _closed(schema[name])
    if "properties" in schema:
        closed["properties"] = {name: _closed(one) for name, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    return closed


@contextmanager
def a_cluster(namespace: str, mtls: dict[str, Any] | None) -> Iterator[str]:
    """A fake Kubernetes API server with Dapr's kinds and, unless `mtls` is None, a control plane; yields its URL."""
    kind = {"name": "configurations", "kind": "Configuration", "namespaced": True, "verbs": ["get"]}
    answers: dict[str, dict[str, Any]] = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/apis/dapr.io/v1alpha1": {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": "dapr.io/v1alpha1",
            "resources": [kind],
        },
    }
    if mtls is not None:
        answers[CONFIGURATIONS.format(namespace=namespace)] = {
            "apiVersion": "dapr.io/v1alpha1",
            "kind": "Configuration",
            "metadata": {"name": "daprsystem", "namespace": namespace},
            "spec": {"mtls": mtls},
        }
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(answers)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _handler(answers: dict[str, dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = json.dumps(answer or {**missing, "code": 404}).encode()
            self.send_response(200 if answer else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silence the request log."""

    return Handler
