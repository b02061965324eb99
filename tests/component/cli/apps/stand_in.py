"""A small test app that returns parts of its environment; standard library only, for a fast start."""

import json
import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        known = self.headers.get("dapr-api-token") == os.environ["APP_API_TOKEN"]
        if self.path == "/healthz":
            self._answer(200, {})
        elif self.path == "/whoami" and known:
            names = ("APP_ID", "APP_PORT", "DAPR_HTTP_PORT", "YOCASO_DATABASE_URL", "GREETING")
            self._answer(200, {name: os.environ.get(name) for name in names} | {"pid": os.getpid()})
        else:
            self._answer(404 if known else 401, {})

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


signal.signal(signal.SIGTERM, _end)
print(f"{os.environ['APP_ID']} listens", flush=True)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["APP_PORT"])), _Handler).serve_forever()
