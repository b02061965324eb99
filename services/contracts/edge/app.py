"""The manifest of `edge`."""

from typing import Final

from services.contracts.auth.keys import VERIFY_API_KEY
from services.contracts.auth.tokens import LIST_REVOCATIONS
from services.kit.manifest import App, Language

APP: Final = App(
    id="edge",
    purpose="REST paths and SSE to RPC; tokens, API keys, revocations, limits, CORS",
    number=1,
    language=Language.GO,
    command=("yocaso-edge",),
    app_port=8080,
    calls=(VERIFY_API_KEY, LIST_REVOCATIONS),
    is_edge=True,
)
