"""What the platform promises underneath: the chassis, faults, access, gates."""

from typing import Final

ARCHITECTURE: Final = "architecture"
RELIABILITY: Final = "reliability"
ISSUE: Final = "issue 3"
ACCESS: Final = "issue 4"

PROMISES: Final[dict[str, tuple[str, str]]] = {
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
    "kit:state-ways": (
        ISSUE,
        "Rows of actors are the same by the component and by SQL, and each guards against the other.",
    ),
    "kit:frozen-owner": (ISSUE, "A frozen owner keeps rows locked for less than 10 s."),
    "kit:group-commit": (ISSUE, "Commits of one moment share a transaction."),
    "kit:whole-reads": (ISSUE, "A read that breaks midway never passes for missing rows."),
    "kit:together": (ISSUE, "Calls that wait for an actor share its turn."),
    "kit:hangs": (ISSUE, "A sidecar that passes no calls on any more is brought back."),
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
    "chaos:hung-sidecar": (ISSUE, "Placement that dies amid a new table leaves no actor locked."),
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
