"""What Yocaso promises: every behaviour has an id and a source; a test names the ids that it shows.

`tests/contract/test_requirements.py` fails for an id without a test and for a test with an unknown id.
"""

from typing import Final

import pytest

ARCHITECTURE: Final = "architecture"
RELIABILITY: Final = "reliability"
FEATURES: Final = "features"
ISSUE: Final = "issue 3"
ACCESS: Final = "issue 4"

REQUIREMENTS: Final[dict[str, tuple[str, str]]] = {
    # Conversations
    "conversations:create": (ISSUE, "A conversation is created and is listed for its owner."),
    "conversations:update": (
        ISSUE,
        "Title, model, system prompt and metadata change; absent fields stay.",
    ),
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
    # The chassis
    "kit:errors": (
        ARCHITECTURE,
        "Each code has a status and says whether it is retryable; INTERNAL hides its cause.",
    ),
    "kit:json-mapping": (
        ARCHITECTURE,
        "Bodies follow the protobuf JSON mapping; unknown fields are refused.",
    ),
    "kit:identity": (
        ARCHITECTURE,
        "Only named apps may speak for a user; empty or repeated ids are UNAUTHENTICATED.",
    ),
    "kit:app-token": (ARCHITECTURE, "An app answers only its sidecar's token, health apart."),
    "kit:idempotency": (
        ISSUE,
        "Replay, 409 + Retry-After in progress, 422 on another body, per caller.",
    ),
    "kit:durable-state": (
        ARCHITECTURE,
        "A stale ETag refuses the whole write; the actor decides again.",
    ),
    "kit:large-reads": (ISSUE, "Rows beyond one message are read in parts."),
    "kit:frozen-owner": (ISSUE, "A frozen owner keeps rows locked for less than 10 s."),
    "kit:group-commit": (ISSUE, "Commits of one moment share a transaction."),
    "kit:actor-in-place": (ARCHITECTURE, "An active actor is called in place."),
    "kit:actor-errors": (ARCHITECTURE, "An error crosses an actor boundary as a value."),
    "kit:segments": (
        ISSUE,
        "A repeated segment resumes after its last checkpoint, fenced by attempt.",
    ),
    "kit:outbound": (
        ISSUE,
        "Timeouts apart for connect, first byte, chunks and total; private addresses refused.",
    ),
    "kit:telemetry": (ISSUE, "One W3C trace crosses edge, app, actor, workflow and model call."),
    "kit:redaction": (ISSUE, "Secrets never reach a log."),
    "kit:settings": (ISSUE, "A bad setting names its variable at start."),
    "kit:migrations": (ISSUE, "Migrations run at start, once, whoever starts first."),
    "kit:database": (ISSUE, "A broken session is thrown away: UNAVAILABLE; all are bounded."),
    "kit:overload": (ISSUE, "What is too much is refused at the door, fairly, with Retry-After."),
    "kit:retention": (ISSUE, "What is past its time goes in batches, and a reader is told so."),
    "kit:failpoints": (ISSUE, "Failpoints stop or kill at a named step, and cost nothing unarmed."),
    "kit:openapi": (ISSUE, "OpenAPI is emitted, committed, valid and without drift."),
    "kit:openapi-conformance": (ISSUE, "schemathesis finds no 5xx on the emitted documents."),
    # Kill and cut
    "chaos:T0": (
        f"{RELIABILITY} T0",
        "Killed before anything was written: a retry gives one message.",
    ),
    "chaos:T1": (f"{RELIABILITY} T1", "Killed with the key reserved: no lasting 409."),
    "chaos:T2": (f"{RELIABILITY} T2", "Killed with the actor call in flight: one epoch wins."),
    "chaos:T3": (
        f"{RELIABILITY} T3",
        "Killed after the commit, before the reply: a retry returns the original.",
    ),
    "chaos:T4": (f"{RELIABILITY} T4", "Killed before the run began: it is started."),
    "chaos:T5": (f"{RELIABILITY} T5", "Killed before the first token: one assistant message."),
    "chaos:T6": (
        f"{RELIABILITY} T6",
        "Killed amid tokens: exact resume, no splice of two generations.",
    ),
    "chaos:T11": (f"{RELIABILITY} T11", "Killed at the terminal write: one terminal."),
    "chaos:T12": (
        f"{RELIABILITY} T12",
        "Cancel races completion: one of them, nothing after the terminal.",
    ),
    "chaos:W2": (f"{RELIABILITY} W2", "Killed around an activity: effects happen once by key."),
    "chaos:C1": (f"{RELIABILITY} C1", "Boots in any order; ready only when usable."),
    "chaos:C2": (f"{RELIABILITY} C2", "SIGTERM drains or hands over safely."),
    "chaos:C3": (f"{RELIABILITY} C3", "Random kills leave the invariants whole."),
    "chaos:control-plane": (ISSUE, "Placement and scheduler are killed once and nothing is lost."),
    "chaos:stores": (ISSUE, "Postgres and Valkey restart and nothing is lost."),
    "chaos:double-activation": (
        f"{RELIABILITY} R-ACT-01",
        "Two owners of an actor lose and double nothing.",
    ),
    "chaos:caller-aborts": (
        f"{RELIABILITY} R-ACT-03",
        "A caller that leaves does not let two calls overlap.",
    ),
    # Access
    "access:typed-routes": (
        ACCESS,
        "Every route names who may call it by a type in its signature.",
    ),
    "access:scopes": (ACCESS, "A token without the method's scope is refused."),
    "access:keys-never-mint-keys": (ACCESS, "An API key never makes keys."),
    "access:keys:secret": (ACCESS, "Keys have 160 random bits, a prefix and a checksum."),
    "access:keys:hidden": (
        f"{RELIABILITY} S-KEY-01",
        "A secret is shown once: neither the database nor the log has it.",
    ),
    "access:keys:timing": (
        f"{RELIABILITY} S-KEY-01",
        "An unknown key costs as much as a wrong secret.",
    ),
    "access:keys:scopes": (ACCESS, "A key gets no more than keys may have and its maker has."),
    "access:keys:verify": (ACCESS, "One call says whether a key is good and what is left of it."),
    "access:keys:limits": (ACCESS, "A key's rate and budget hold over replicas."),
    "access:keys:charges": (ACCESS, "A cost is booked on a key once per reference."),
    "access:keys:rotate": (ACCESS, "Both secrets work during the grace, the old one not after."),
    "access:keys:revoke": (
        f"{RELIABILITY} S-KEY-01",
        "A revoked key is refused by every replica, and so are its tokens.",
    ),
    "access:keys:ownership": (
        ACCESS,
        "Whoever makes a key manages it, also where the process dies before it has said so.",
    ),
    "access:keys:organization": (ACCESS, "Only admins of an organization manage its keys."),
    "access:tokens:exchange": (ACCESS, "A key is traded for a short token with no more scopes."),
    "access:tokens:refresh": (ACCESS, "A refresh token works once and brings the next."),
    "access:tokens:reuse": (
        ACCESS,
        "Reuse ends the session, but for the token before, once within 10 s.",
    ),
    "access:tokens:revoke": (ACCESS, "Sign-out ends the session and lists its tokens as revoked."),
    "access:audit:own": (ACCESS, "Security events are read by whose log they are in, only."),
    "access:audit:once": (ACCESS, "An event with a reference is recorded once."),
    "access:cache": (
        ACCESS,
        "A yes holds until a change that concerns it, for 5 s if none is heard of.",
    ),
    "access:feed": (ACCESS, "What takes access away is in the feed before it is acknowledged."),
    "access:fail-closed": (
        ACCESS,
        "While nobody can tell, the answer is UNAVAILABLE, never a yes.",
    ),
    "access:foreign-as-missing": (ACCESS, "A foreign object answers as a missing one."),
    "access:openfga": (
        ACCESS,
        "`yocaso up` runs a real OpenFGA: own database, made on older state folders too; no call without its key.",
    ),
    "access:model": (
        ACCESS,
        "The model is a DSL file, and gives each role to whom its table says.",
    ),
    "access:model-mutation": (ACCESS, "Without any part of any line of the model a test fails."),
    "access:model-pinned": (
        ACCESS,
        "Replicas that start together make one store and one model; a new model is written at start, and pinned.",
    ),
    "access:relations": (ACCESS, "Facts are written all or none, repeatably, for ids of any user."),
    "access:revoked-at-once": (ACCESS, "The first fresh check after a revocation says no."),
    "access:outbox": (
        ACCESS,
        "Facts committed with an object are delivered, also when the process dies in between.",
    ),
    "access:sharing": (
        ACCESS,
        "An owner shares by user, group and organization, and stops; nobody else does.",
    ),
    "access:share-links": (
        ACCESS,
        "A link gives its role to who opens it, until it ends; its token is kept as a keyed hash only.",
    ),
    "access:forget": (ACCESS, "A deleted object leaves no fact and no link."),
    "access:stream-recheck": (
        ACCESS,
        "A revocation ends a live stream within 10 s; others cost it nothing.",
    ),
    "access:facts-follow-objects": (
        ACCESS,
        "An owner's fact comes with the object and goes with it, whatever dies in between.",
    ),
    "access:edge:keys": (
        f"{RELIABILITY} S-KEY-01",
        "A key is taken in either header, alone, never in a query, and no log shows it.",
    ),
    "access:edge:revocation": (
        f"{RELIABILITY} S-KEY-01",
        "A revoked key, its tokens and its streams end at the edge within 5 s.",
    ),
    "access:matrix": (
        f"{RELIABILITY} S-TEN-01",
        "Every operation gives everybody what the contract says; a new one without a row fails.",
    ),
    "access:no-canary": (
        f"{RELIABILITY} S-TEN-02",
        "No reply shows what is somebody else's.",
    ),
    "access:policies": (
        ACCESS,
        "What a sidecar lets its app ask of Dapr, and lets others ask of its app, follows the contracts.",
    ),
    "access:chart": (
        ACCESS,
        "On Kubernetes Dapr is told the same of trust, for the release's namespace and trust domain.",
    ),
    "access:chart-mtls": (ACCESS, "The chart is refused by a control plane whose mTLS is off."),
    "access:logs": (f"{RELIABILITY} S-LOG-01", "Secrets and people's words reach no log or trace."),
    "access:rate-limits": (
        f"{RELIABILITY} S-RL-01",
        "A user's rate is exact over processes, and limited while Valkey is away.",
    ),
    "access:budgets": (
        ACCESS,
        "A key's turns are booked on it once; past its budget it is refused.",
    ),
    "access:locked-doors": (
        f"{RELIABILITY} S-ID-02, S-ID-03, S-ID-04",
        "Apps and sidecars answer only who has their token; no detour reaches an internal method.",
    ),
    "access:proven-callers": (
        f"{RELIABILITY} S-ID-04",
        "In the secure profile a caller's app-id is proven, and calls no line allows are refused.",
    ),
    "access:erasure": (
        ACCESS,
        "DeleteAccount removes a user's data from every store, with a receipt.",
    ),
    "access:guide": (
        ACCESS,
        "Every example of the guide for client apps runs, and prints what the guide says.",
    ),
    # Gates
    "gates:size": ("style", "No file over 400 lines, no function over 60."),
    "gates:layout": ("style", "Each service folder has the known file names and a README."),
}


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Says which promises a test shows."""
    unknown = [name for name in ids if name not in REQUIREMENTS]
    if unknown:
        raise ValueError(f"no such requirement: {unknown}")
    return pytest.mark.requirement(*ids)
