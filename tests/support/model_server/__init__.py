"""A scripted model on OpenRouter's wire, for tests and benches: text, tools, errors, cuts, slowness, a journal."""

from tests.support.model_server.journal import Entry
from tests.support.model_server.script import Script, script_text
from tests.support.model_server.server import ModelServer

__all__ = ["Entry", "ModelServer", "Script", "script_text"]
