"""A scripted model with OpenRouter's API: text, tools, errors, cuts, delays, and a journal of requests."""

from tests.support.model_server.journal import Entry
from tests.support.model_server.script import Script, script_text
from tests.support.model_server.server import ModelServer

__all__ = ["Entry", "ModelServer", "Script", "script_text"]
