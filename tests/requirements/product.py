"""What users of the platform are promised: conversations, turns, streams, the edge, sign-in."""

from typing import Final

ARCHITECTURE: Final = "architecture"
RELIABILITY: Final = "reliability"
FEATURES: Final = "features"
ISSUE: Final = "issue 3"
ACCESS: Final = "issue 4"

PROMISES: Final[dict[str, tuple[str, str]]] = {
    # Conversations
    "conversations:create": (ISSUE, "A conversation is created and is listed for its owner."),
    "conversations:update": (
        ISSUE,
        "Title, model, system prompt and metadata change; absent fields stay.",
    ),
    "conversations:memory": (ISSUE, "What is kept of conversations in memory is bounded."),
    "conversations:delete": (
        ISSUE,
        "A deleted conversation is gone with its messages, and a message to it is NOT_FOUND.",
    ),
    "conversations:delete-again": (ISSUE, "The owner may repeat a deletion."),
    "conversations:list": (ISSUE, "Pages have limits, opaque cursors and a stable order."),
    "conversations:messages": (ISSUE, "Messages are listed in both directions with cursors."),
    "conversations:append": (ISSUE, "A message is stored without asking the model."),
    "conversations:tenancy": (
        ISSUE,
        "Two users cannot see each other; a foreign id answers as a missing one.",
    ),
    "conversations:cursor-of-another": (
        ISSUE,
        "A cursor of another user or list is INVALID_ARGUMENT.",
    ),
    "conversations:bad-input": (ISSUE, "Bad input names the field and writes nothing."),
    "conversations:growth": (ISSUE, "The cost of an append does not grow with the conversation."),
    # Turns
    "turns:send": (ISSUE, "SendMessage answers with the finished turn and its message."),
    "turns:stream": (ISSUE, "The first byte arrives before the model has finished."),
    "turns:idempotent": (f"{RELIABILITY} I2", "Repeating a key gives one turn and the same reply."),
    "turns:reject": (ARCHITECTURE, "REJECT answers TURN_IN_PROGRESS while a turn runs."),
    "turns:enqueue": (ARCHITECTURE, "ENQUEUE runs turns in order, and its queue is bounded."),
    "turns:cancel": (
        f"{FEATURES} A6, C5",
        "Cancel closes the upstream within 1 s, keeps the text, and gives a receipt.",
    ),
    "turns:cancel-before-start": (
        f"{FEATURES} C6",
        "A cancel before the worker has begun is honoured.",
    ),
    "turns:disconnect": (
        f"{FEATURES} A5, C4",
        "A disconnect never stops a turn unless CANCEL was asked.",
    ),
    "turns:one-terminal": (
        f"{RELIABILITY} I5",
        "A turn has exactly one terminal status and event, the last.",
    ),
    "turns:attempt-restarted": (
        ARCHITECTURE,
        "A new attempt says which text to drop; text is never doubled.",
    ),
    "turns:fenced": (f"{FEATURES} C7", "A stale attempt or epoch can write nothing."),
    "turns:bounds": (ISSUE, "Wall time and tokens of a turn are bounded."),
    "turns:usage": (
        ISSUE,
        "Usage of cancelled, failed and restarted attempts is booked, and marked where estimated.",
    ),
    "turns:liveness": (
        f"{RELIABILITY} I11",
        "A turn whose workflow never started is started by its reminder.",
    ),
    "turns:deterministic-workflow": (
        "style",
        "Workflow definitions read no clock, chance, environment or device.",
    ),
    # The model
    "model:terminal-rule": (
        f"{FEATURES} C",
        "Success needs a finish reason and usage or [DONE]; else STREAM_INCOMPLETE.",
    ),
    "model:error-in-200": (ISSUE, "An error inside a 200 body or stream is an error."),
    "model:retry-by-class": (ISSUE, "Retries go by class of error and honour Retry-After."),
    "model:chunk-boundaries": (
        f"{RELIABILITY} NET-04",
        "Any split of the bytes parses to the same stream.",
    ),
    "model:cuts": (f"{RELIABILITY} NET-03", "A cut stream is never shown as complete."),
    "model:unknown": (ISSUE, "An unknown model is MODEL_INVALID."),
    # Events and streams
    "engine:recovery": (ARCHITECTURE, "Work whose host died or froze goes on in another, once."),
    "engine:no-false-takeover": (ARCHITECTURE, "A late heartbeat is not a death."),
    "engine:deadline": (ARCHITECTURE, "A deadline that has passed ends the work."),
    "engine:durable-steps": (ARCHITECTURE, "Durable steps answer one call, each done once."),
    "events:outlive-restart": (
        ISSUE,
        "An append outlives a restart of Postgres, and is written once.",
    ),
    "events:gap-free": (
        f"{RELIABILITY} I3",
        "seq counts from 1 without a gap or a repeat, also across resumes.",
    ),
    "events:resume": (
        f"{FEATURES} C1, C3",
        "A resume gives byte-identical events, through any replica.",
    ),
    "events:bad-cursor": (
        f"{RELIABILITY} NET-06",
        "A cursor that is no event's, or of the future, is refused.",
    ),
    "events:long-poll": (
        ARCHITECTURE,
        "ListEvents waits for the first event, and says when nothing more will come.",
    ),
    "events:error": (ISSUE, "A stream that fails midway ends with `error`, and can be resumed."),
    "events:heartbeat": (
        ARCHITECTURE,
        "An idle stream carries a comment every 15 s, and `reconnect` before 150 s.",
    ),
    "events:slow-client": (
        f"{RELIABILITY} NET-05",
        "A client that does not read costs bounded memory.",
    ),
    "events:many": (ISSUE, "5,000 streams may stand open, and calls do not wait for them."),
    "events:drain": (
        ARCHITECTURE,
        "An app that stops takes no more, and its streams say `reconnect`.",
    ),
    "events:thousand-cuts": (ISSUE, "1,000 random cuts and resumes give byte-equal text."),
    # The edge
    "edge:jwt": (ISSUE, "Tokens are checked by JWKS with cache and rotation."),
    "edge:identity-headers": (
        ISSUE,
        "Client-sent identity headers are removed, in any spelling; ours are set.",
    ),
    "edge:cors": (ISSUE, "CORS is answered."),
    "edge:limits": (ISSUE, "Bodies and headers are bounded."),
    "edge:errors": (ISSUE, "The edge's own errors are RpcErrors."),
    "edge:stream-flush": (ISSUE, "Streams are flushed at once and outlive the normal limit."),
    "edge:client-gone": (ISSUE, "A client that leaves closes the upstream."),
    "edge:config": (ISSUE, "The edge's configuration is rendered from the contracts."),
    "edge:openapi": (ISSUE, "The merged document is served at /openapi.json and shown at /docs."),
    # Tokens
    "auth:issue-token": (
        ISSUE,
        "A local token carries sub, email and scope, and is refused in production.",
    ),
    "auth:rotation": (ISSUE, "After a rotation, old tokens verify until they are over."),
    "auth:jwks": (ISSUE, "The key set shows public parts only."),
    # Sign-in by Firebase
    "access:firebase:forgeries": (
        f"{RELIABILITY} S-JWT-01",
        "Only what Firebase signed for the project is taken; any other byte is refused.",
    ),
    "access:firebase:keys": (
        f"{RELIABILITY} S-JWT-01",
        "Certificates are kept while they count, and unknown key ids cost a fetch a minute.",
    ),
    "access:firebase:standing": (
        ACCESS,
        "Revoked, disabled and deleted users are refused; Firebase is asked once for many sign-ins.",
    ),
    "access:firebase:fail-closed": (
        ACCESS,
        "Nobody comes in on an old word of Firebase: UNAVAILABLE until it can be asked.",
    ),
    "access:firebase:minting": (
        f"{FEATURES} A25",
        "Session cookies and custom tokens are made for those who may have them.",
    ),
    "access:firebase:link": (
        ACCESS,
        "A Firebase user is one of ours, always the same; the link survives restarts, and erasure ends it.",
    ),
    "access:firebase:settings": (
        ACCESS,
        "The emulator is refused in production, and locally unless it is asked for.",
    ),
    # The stack
    "stack:up-ready": (ISSUE, "`up` is ready only when a probe turn has been answered."),
    "stack:stop-clean": (ISSUE, "Ctrl-C or SIGTERM ends all within 10 s and leaves no process."),
    "stack:reclaim": (ISSUE, "After a kill -9 of `yocaso`, the next `up` cleans up what is ours."),
    "stack:second-up": (ISSUE, "A second `up` on the same state folder is refused clearly."),
    "stack:port-in-use": (ISSUE, "A port in use is named, with what wanted it."),
    "stack:restart": (ISSUE, "An app that dies is restarted with backoff, and that is said."),
    "stack:state-survives": (ISSUE, "State survives a stop and a start."),
    "stack:doctor": (ISSUE, "`doctor` explains what is missing and how to get it."),
    "stack:token": (ISSUE, "`token` prints a bearer token that works."),
    "stack:chat": (ISSUE, "`chat` streams, cancels, and survives a reconnect."),
    "stack:dapr-yaml": (
        ISSUE,
        "dapr.yaml is a valid multi-app run template; components are scoped.",
    ),
}
