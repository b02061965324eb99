"""What `yocaso up` and `yocaso infra` print once the stack runs: addresses and next steps."""

from pathlib import Path
from typing import Final

from services.cli.edge import StackEndpoints
from services.cli.stack.environment import MODEL
from services.cli.stack.stack import Stack
from services.cli.tokens import issue_token
from services.contracts.apps import EDGE
from services.contracts.llm.conversations import CREATE_CONVERSATION, STREAM_MESSAGE

_LISTED_SERVERS: Final = ("postgres", "valkey", MODEL)
"""Servers that developers open."""


def addresses(stack: Stack, endpoints: StackEndpoints | None) -> dict[str, str]:
    """Addresses by name; `endpoints` if the apps run."""
    rows: dict[str, str] = {}
    if endpoints is not None:
        rows |= {EDGE.id: endpoints.edge_url, "API documentation": f"{endpoints.edge_url}/docs"}
    for name in stack.names:
        if name in _LISTED_SERVERS:
            rows[name] = stack.url(name).split("@")[-1]
        elif name in stack.apps and name != EDGE.id:
            rows[f"app {name}"] = f"{stack.url(name)} (sidecar {stack.url(name + '-daprd')})"
    return {**rows, "logs": str(stack.state.logs)}


def first_calls(stack: Stack, endpoints: StackEndpoints, state: Path) -> str:
    """Shell commands for a first conversation."""
    option = "" if state == Path(".yocaso") else f" --state {state}"
    token = issue_token(stack.state.path, "me", "me@example.com", endpoints=endpoints)
    create, stream = (
        endpoints.edge_url + each.edge_path for each in (CREATE_CONVERSATION, STREAM_MESSAGE)
    )
    headers = """-H "authorization: Bearer $TOKEN" -H 'content-type: application/json'"""
    return (
        f"\nStart a conversation (the token is valid for one day):\n\n  TOKEN={token}\n"
        f"  ID=$(curl -s {create} {headers} -d '{{}}' | grep -o 'conv_[0-9a-z]*')\n"
        f"  curl -sN {stream} {headers} -H 'accept: text/event-stream' "
        """-d '{"conversationId":"'$ID'","text":"Hello!"}'\n\n"""
        f"Or chat in the terminal: yocaso chat{option}\nStop with Ctrl-C.\n\n"
    )
