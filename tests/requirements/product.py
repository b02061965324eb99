"""Requirements that clients and operators see: conversations, turns, streams, the edge, sign-in, the local stack."""

from typing import Final

SOURCES: Final[dict[str, dict[str, str]]] = {
    "services/contracts/llm/conversations.py": {
        "conversations:create": "A conversation is created and listed for its owner.",
        "conversations:update": "Title, model, system prompt and metadata change; absent fields stay.",
        "conversations:delete": "A deleted conversation and its messages are NOT_FOUND.",
        "conversations:delete-again": "The owner may repeat a deletion.",
        "conversations:messages": "Messages are listed in both directions with cursors.",
        "conversations:append": "A message is stored without calling the model.",
        "turns:send": "SendMessage returns the ended turn and its message.",
        "turns:stream": "The first byte arrives before the model has finished.",
        "turns:reject": "REJECT answers TURN_IN_PROGRESS while a turn runs.",
        "turns:enqueue": "ENQUEUE runs turns in order, and its queue is bounded.",
        "turns:disconnect": "A disconnect stops a turn only if the request asked for CANCEL.",
        "events:bad-cursor": "A cursor that is no event of the turn, or a future one, is refused.",
        "events:long-poll": "ListEvents waits for the first event and says when no event follows.",
    },
    "services/contracts/llm/topics.py": {
        "events:turn-completed": "Every ended turn is published, without its texts.",
        "events:conversation-deleted": "A deleted conversation is published once, and recorded in its owner's audit log.",
    },
    "services/contracts/auth/topics.py": {
        "events:access-changed": "Removed access is published with its position in the feed.",
    },
    "services/contracts/paging.py": {
        "conversations:list": "Pages have limits, opaque cursors and a stable order.",
        "conversations:cursor-of-another": "A cursor of another user or list is INVALID_ARGUMENT.",
    },
    "services/contracts/llm/turns.py": {
        "turns:bounds": "Duration and tokens of a turn are bounded.",
        "turns:usage": "Usage of cancelled, failed and restarted attempts is counted; estimates are marked.",
    },
    "services/contracts/events.py": {
        "turns:one-terminal": "A turn has exactly one terminal status and one terminal event, its last.",
        "events:gap-free": "seq counts from 1 without a gap or a repeat, also across resumes.",
    },
    "services/llm/README.md#guarantees": {
        "conversations:long": "Pages, appends and turns cost the same in a conversation of 10,000 messages; deletion removes every row.",
        "conversations:memory": "Messages and conversations cached in memory are bounded.",
        "turns:cancel": "Cancel closes the upstream within 1 s, keeps the text, and returns a receipt.",
        "turns:cancel-before-start": "A cancel before the attempt began takes effect.",
        "model:terminal-rule": "Success needs a finish reason and usage or [DONE]; else STREAM_INCOMPLETE.",
        "model:error-in-200": "An error inside a 200 body or stream is an error.",
        "model:retry-by-class": "Retries depend on the class of error and honour Retry-After.",
        "model:chunk-boundaries": "Any split of the bytes parses to the same stream.",
        "model:cuts": "A cut stream is never shown as complete.",
        "model:unknown": "An unknown model is MODEL_INVALID.",
    },
    "services/README.md#a-turn": {
        "turns:fenced": "A stale attempt or epoch can write nothing.",
        "turns:liveness": "A turn whose host died, or whose workflow never started, is recovered.",
    },
    "CONTRIBUTING.md#add-a-workflow": {
        "turns:deterministic-workflow": "Workflow definitions read no clock, random, environment or I/O.",
    },
    "services/decisions/0009-workflows-on-demand.md": {
        "engine:recovery": "Work whose host died or froze continues in another host, once.",
        "engine:no-false-takeover": "A late heartbeat is not taken for a death.",
        "engine:deadline": "A deadline that has passed ends the work.",
    },
    "services/kit/README.md#kit": {
        "engine:durable-steps": "Durable steps behind one call each run once.",
    },
    "services/kit/README.md#guarantees": {
        "events:outlive-restart": "An append survives a restart of Postgres and is written once.",
        "events:slow-client": "A client that does not read costs bounded memory.",
        "events:drain": "A stopping app accepts nothing new, and its streams end with `reconnect`.",
    },
    "services/auth/clients.md#streams": {
        "events:error": "A stream that fails midway ends with `error` and can be resumed.",
        "events:resume": "A resume returns byte-identical events, through any replica.",
    },
    "services/auth/clients.md#errors": {
        "conversations:bad-input": "Bad input names the field and writes nothing.",
        "conversations:tenancy": "Users cannot see each other's objects; a foreign id answers as a missing one.",
    },
    "README.md#a-first-conversation": {
        "turns:idempotent": "Repeating a key makes one turn and returns the same reply.",
        "edge:openapi": "The merged document is served at /openapi.json and shown at /docs.",
    },
    "README.md#how-it-is-built": {
        "turns:attempt-restarted": "A new attempt says which text to drop; text is never shown twice.",
    },
    "README.md#figures": {
        "conversations:growth": "The cost of an append does not grow with the conversation.",
        "events:thousand-cuts": "1,000 random cuts and resumes give byte-equal text.",
    },
    "README.md#known-limits": {
        "events:heartbeat": "An idle stream carries a comment every 15 s, and `reconnect` before its time limit.",
    },
    "services/decisions/0014-streams-over-http-2.md": {
        "events:many": "5,000 streams stay open, and calls do not wait for them.",
    },
    "services/edge/README.md#behaviour": {
        "edge:jwt": "Tokens are verified by a JWKS with cache and rotation.",
        "edge:identity-headers": "Identity headers of clients are removed, in any spelling; the edge sets its own.",
        "edge:cors": "CORS preflights of allowed origins are answered.",
        "edge:limits": "Bodies and headers are bounded.",
        "edge:errors": "The edge's own errors are RpcErrors.",
        "edge:stream-flush": "Streams are flushed at once and outlast the time limit of calls.",
        "edge:client-gone": "A client that disconnects closes the upstream.",
        "edge:config": "The edge's configuration is emitted from the contracts.",
        "edge:docs": "/docs groups the methods by service, finds one by search, calls it with a token, and asks no other host.",
        "edge:spans": "The edge exports a server and a client span per call, which hold nothing that the caller sent.",
    },
    "services/contracts/auth/tokens.py": {
        "auth:issue-token": "A local token carries sub, email and scope; issuing is refused in production.",
        "auth:jwks": "The JWKS holds public keys only.",
    },
    "services/auth/README.md": {
        "auth:rotation": "After a key rotation, earlier tokens verify until they expire.",
        "access:firebase:forgeries": "Only tokens that Firebase signed for the project are accepted.",
        "access:firebase:keys": "Certificates are cached while valid; unknown key ids cause one fetch a minute.",
        "access:firebase:standing": "Revoked, disabled and deleted users are refused; concurrent look-ups are shared.",
        "access:firebase:fail-closed": "Sign-in is UNAVAILABLE while a needed look-up at Firebase fails.",
        "access:firebase:link": "A Firebase user maps to one stable user until erasure.",
        "access:firebase:settings": "The emulator is refused in production, and locally unless allowed.",
    },
    "services/auth/clients.md#websites-rendered-on-a-server": {
        "access:firebase:minting": "Session cookies and custom tokens are made for permitted users.",
    },
    "services/cli/README.md#guarantees": {
        "stack:up-ready": "`up` is ready only when a probe turn was answered.",
        "stack:model-silent": "Without an answer of the model the platform stays up and says what to do.",
        "stack:cold-start": "Servers that need no Go are ready while missing programs are built.",
        "stack:builds": "Missing programs are built at once, with one measure of progress.",
        "stack:sidecar-restart": "A sidecar that hangs at its start is restarted, a bounded number of times.",
        "stack:console": "The console shows what matters to a person; files and `--json` hold everything.",
        "stack:stop-at-once": "A second Ctrl-C ends every process at once.",
        "stack:stop-clean": "Ctrl-C or SIGTERM ends every process within 10 s.",
        "stack:reclaim": "After a kill -9 of `yocaso`, the next `up` ends the processes left over.",
        "stack:second-up": "A second `up` on the same state folder is refused.",
        "stack:port-in-use": "A used port is named with the process that needs it.",
        "stack:restart": "An app that dies is restarted with backoff, and that is reported.",
        "stack:state-survives": "State survives a stop and a start.",
        "stack:template": "Data folders of Postgres are copied from a template, made once, and share no secret.",
        "stack:doctor": "`doctor` names what is missing and how to install it.",
        "stack:token": "`token` prints a working bearer token.",
        "stack:chat": "`chat` streams, cancels, and resumes after a reconnect.",
    },
    "services/cli/README.md#dapr-run": {
        "stack:dapr-yaml": "dapr.yaml is a valid multi-app run template; components are scoped.",
        "stack:dapr-run": "`dapr run -f dapr.yaml` beside `infra` starts every app; Ctrl-C ends all.",
        "stack:run-template": "Templates are read by the rules of `dapr run`; the invalid field is named.",
    },
}
