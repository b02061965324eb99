"""The manifest of `llm`."""

from typing import Final

from services.contracts.auth.access import ACCESS_CALLS
from services.contracts.auth.keys import CHARGE_API_KEY
from services.contracts.erasure import eraser_of
from services.contracts.llm.conversations import CONVERSATION_SERVICE
from services.contracts.llm.jobs import PURGE
from services.contracts.llm.topics import TOPICS
from services.contracts.llm.turns import GENERATION_WORKFLOW, RUN_TURN
from services.contracts.workflows.service import PURGE_WORKFLOWS, START_WORKFLOW
from services.kit.manifest import App, Server

LOCAL_MODEL: Final = "smollm2-135m-instruct"
"""Model of the local stack when no API key is set. It rarely ends an answer by itself, so tokens are limited below."""

APP: Final = App(
    id="llm",
    purpose="conversations, turns, their events",
    number=12,
    services=(CONVERSATION_SERVICE,),
    actors=("ConversationManagerActor", "ConversationActor"),
    workflows=(GENERATION_WORKFLOW,),
    activities=(RUN_TURN, eraser_of("llm")),
    publishes=TOPICS,
    jobs=(PURGE,),
    calls=(*ACCESS_CALLS, CHARGE_API_KEY, START_WORKFLOW, PURGE_WORKFLOWS),
    components=("statestore", "secrets"),
    owns=("schema `events` (kit's, shared)",),
    variables={
        "LLM_BASE_URL": Server("model", "{url}/v1"),
        "LLM_DEFAULT_MODEL": Server("model", LOCAL_MODEL),
        "LLM_MODELS": Server("model", LOCAL_MODEL),
        "LLM_MAX_OUTPUT_TOKENS": Server("model", "512", overridable=True),
    },
)
