"""Requirements of the platform: the chassis, faults, access control, repository gates."""

from typing import Final

SOURCES: Final[dict[str, dict[str, str]]] = {
    # The chassis
    "services/kit/README.md#guarantees": {
        "kit:errors": "Each code has a status and a retry flag; INTERNAL hides its cause.",
        "kit:json-mapping": "Bodies follow the protobuf JSON mapping; unknown fields are refused.",
        "kit:identity": "Only named apps may forward a user; empty or repeated ids are UNAUTHENTICATED.",
        "kit:rpc-client": "A call between apps has the contract's time limit and the user's identity; errors arrive as they were; streams resume without a repeat.",
        "kit:app-token": "An app answers only its sidecar's token, except for health checks.",
        "kit:call-ids": "A call that a sidecar delivers twice takes effect once, by an id that no client can set.",
        "kit:idempotency": "Per caller: replay, 409 with Retry-After in progress, 422 on another body.",
        "kit:durable-state": "A stale ETag refuses the whole write; the actor decides again.",
        "kit:large-reads": "Rows beyond one gRPC message are read in parts.",
        "kit:complete-reads": "An interrupted read fails and never looks like missing rows.",
        "kit:telemetry": "One W3C trace spans edge, app, actor, workflow and model call.",
        "kit:redaction": "Secrets never reach a log.",
        "kit:settings": "An invalid setting names its variable at start.",
        "kit:database": "A broken session is discarded: UNAVAILABLE; every wait is bounded.",
        "kit:openapi": "OpenAPI documents are emitted, committed, valid and up to date.",
        "kit:openapi-conformance": "schemathesis finds no 5xx on the emitted documents.",
        "access:logs": "Secrets and users' texts reach no log or trace.",
    },
    "services/kit/README.md#kit": {
        "kit:outbound": "Separate timeouts for connect, first byte, chunks and total; private addresses refused.",
        "kit:failpoints": "Failpoints pause or kill at a named step, and cost nothing unarmed.",
    },
    "services/kit/README.md#store-objects": {
        "kit:objects": "An object is stored whole or not at all; a missing one is NOT_FOUND, its deletion no error.",
        "kit:objects:keys": "A key is a safe path below its folder, or refused before anything is sent.",
        "kit:objects:checksum": "Content with another SHA-256 than given is not stored.",
        "kit:objects:streams": "A stream passes in bounded memory; one that fails or is cancelled stores nothing.",
        "kit:objects:faults": "Without its server a call ends as UNAVAILABLE, and can be repeated; a broken read never looks complete.",
        "kit:objects:presigned": "A presigned request fits only the key, method, headers and time that were signed.",
        "kit:objects:uploads": "Parts become an object only when their upload is completed; completing and aborting can be repeated.",
        "kit:objects:leftovers": "Uploads that were never completed, such as those of a killed process, are listed.",
        "kit:objects:content": "The same content is one object; missing and changed content are typed errors.",
    },
    "services/kit/README.md#sign-and-verify-webhooks": {
        "kit:webhook-signatures": "A message is accepted only with its bytes, id and secret, within five minutes, and refused without a reason.",
        "kit:webhook-signatures:rotation": "During a rotation both secrets sign, and either is accepted.",
    },
    "services/kit/README.md#jobs": {
        "kit:jobs:schedules": "A schedule is validated; a delivery counts for the newest due time, so missed ones are one run.",
        "kit:jobs:once": "Each due time, and each scheduled key, is run once by one replica, whatever is delivered again.",
        "kit:jobs:one-shot": "A key waits for one time and payload; a repeat changes nothing, another is refused or replaces it.",
        "kit:jobs:failures": "A failed run is repeated and logged; a terminal error or five bugs give it up.",
        "kit:jobs:registration": "A changed schedule replaces the registered one; a job that left the manifest is removed.",
        "kit:jobs:callers": "Only the scheduler delivers jobs.",
    },
    "services/kit/README.md#bindings": {
        "kit:bindings:output": "A call is made once, within its time limit; a refusal, a dead and a slow system have codes of their own.",
        "kit:bindings:headers": "Metadata that is undeclared, missing or has line breaks is refused before the call.",
        "kit:bindings:input": "A message with an id is handled once; a failed one can be delivered again; only the sidecar delivers.",
    },
    "services/README.md#back-up-and-restore": {
        "upgrade:backup": "A backup taken while turns run restores what was acknowledged, once; running work goes on.",
    },
    "CONTRIBUTING.md#make-a-release": {
        "upgrade:state": "Data, API keys, sessions and idempotency keys of the release before are kept.",
        "upgrade:work": "Turns, workflows and changes of access that were under way at the upgrade are finished.",
    },
    "CONTRIBUTING.md#change-a-workflow": {
        "upgrade:histories": "Every workflow repeats the steps of the histories that were recorded of it.",
    },
    "services/decisions/0015-actor-state-in-one-statement.md": {
        "kit:state-stores": "Actor rows are the same through Dapr's component and through SQL, and each detects the other's writes.",
    },
    "services/decisions/0010-direct-actor-calls-and-group-commit.md": {
        "kit:group-commit": "Concurrent commits share a transaction.",
        "kit:actor-in-place": "An actor active in this process is called directly.",
        "kit:actor-errors": "Errors cross an actor boundary as values.",
    },
    "services/decisions/0013-creation-in-the-commit-of-its-index.md": {
        "kit:batched-calls": "Calls that wait for an actor run as one batch.",
    },
    "services/decisions/0012-load-shedding-by-measured-latency.md": {
        "kit:overload": "Excess calls are refused before work begins, fairly, with Retry-After.",
    },
    "services/README.md#a-turn": {
        "kit:retention": "Expired events are deleted in batches, and a reader of them gets an error.",
    },
    "charts/yocaso/README.md": {
        "kit:frozen-owner": "A frozen owner keeps rows locked for less than 10 s.",
        "access:chart": "On Kubernetes Dapr gets the same policies, for the release's namespace and trust domain.",
        "access:chart-mtls": "The chart refuses a control plane without mTLS.",
    },
    "CONTRIBUTING.md#the-inner-loop": {
        "kit:dev": "One app of a running platform is restarted when its code changes.",
    },
    "CONTRIBUTING.md#add-an-app": {
        "kit:new-app": "A new app is its own folders; everything else follows from its manifest.",
        "gates:extras": "An app runs with the core packages and its own extra; the default install has every extra.",
    },
    "CONTRIBUTING.md#add-a-table": {
        "kit:migrations": "Migrations run once at start, whichever replica starts first.",
    },
    # Faults; the letters name the row in the tables of tests/requirements/README.md
    "tests/requirements/README.md#faults-of-a-turn": {
        "chaos:T0": "Killed before anything was written: a retry makes one message.",
        "chaos:T1": "Killed with the key reserved: no lasting 409.",
        "chaos:T2": "Killed with the actor call in flight: one epoch wins.",
        "chaos:T3": "Killed after the commit, before the reply: a retry returns the original.",
        "chaos:T4": "Killed before the run began: it is started.",
        "chaos:T5": "Killed before the first token: one assistant message.",
        "chaos:T6": "Killed amid tokens: exact resume, no splice of two generations.",
        "chaos:T11": "Killed at the terminal write: one terminal event.",
        "chaos:T12": "Cancel races completion: one of them, nothing after the terminal event.",
    },
    "tests/requirements/README.md#faults-of-workflows-jobs-and-actors": {
        "chaos:W2": "Killed around an activity: effects happen once per key.",
        "chaos:W4": "App and sidecar killed at a wait: the workflow completes once with the right result.",
        "chaos:J1": "Killed before, amid and after a job's effect, also its sidecar or the scheduler: one effect, no run lost.",
        "chaos:double-activation": "Two owners of an actor lose and duplicate nothing.",
        "chaos:caller-aborts": "A caller that disconnects does not let two calls overlap.",
    },
    "tests/requirements/README.md#faults-of-events-webhooks-uploads-and-notifications": {
        "chaos:H3": "Events under random kills of app, sidecar, broker and database have one effect each.",
        "chaos:H4": "Killed before, amid and after the effect of an event: one effect, none lost.",
    },
    "tests/requirements/README.md#faults-of-the-platform": {
        "chaos:C1": "Processes start in any order; ready only when usable.",
        "chaos:C2": "SIGTERM drains or hands over.",
        "chaos:C3": "Random kills violate no invariant.",
    },
    "README.md#yocaso": {
        "chaos:control-plane": "Placement and scheduler are killed and nothing is lost.",
        "chaos:stores": "Postgres and Valkey are killed and nothing is lost.",
        "chaos:network": "Slow, reset and half-open connections between processes: calls end in time, nothing is lost or doubled.",
    },
    "README.md#how-it-is-built": {
        "kit:segments": "A repeated segment resumes after its last checkpoint, fenced by attempt.",
        "access:typed-routes": "Every route names its callers by a type in its signature.",
    },
    "README.md#known-limits": {
        "kit:locked-actor-types": "Actor types that daprd keeps locked are registered again.",
        "chaos:hung-sidecar": "Placement that dies while it sends a new table leaves no actor locked.",
    },
    "services/cli/README.md#guarantees": {
        "stack:objects": "The object store runs only for apps that use it, on loopback, with credentials of its own.",
        "access:openfga": "`yocaso up` runs OpenFGA with its own database, added to older state folders too; no call without its key.",
    },
    "CONTRIBUTING.md#add-a-topic": {
        "kit:pubsub:outbox": "An event is published if and only if its transaction commits, also while the broker is down.",
        "kit:pubsub:actors": "An actor's event is published if and only if its state is committed, in both state stores.",
        "kit:pubsub:cloudevents": "Events are CloudEvents 1.0 that carry the publisher's W3C trace.",
        "kit:pubsub:inbox": "A repeated delivery of an event has one effect.",
        "kit:pubsub:undelivered": "An event that the broker lost is taken from the publisher's outbox, where it stays until it is recorded.",
        "kit:pubsub:order": "Events of one key of an ordered topic are handled in the order of their commits.",
        "kit:pubsub:callers": "Only the broker delivers events: a call from another app is refused.",
        "kit:pubsub:dead-letters": "Poison becomes a dead letter while others flow; it is listed, shown and redriven.",
        "kit:pubsub:retries": "An event whose handler is unavailable is retried and not given up.",
    },
    "CONTRIBUTING.md#add-a-workflow": {
        "kit:workflows:events": "A wait takes each event id once, in order, or ends at its time limit; a bad payload enters no history.",
        "kit:workflows:when": "when_any leaves the others running and loses no event; when_all returns each failure as a value.",
        "kit:workflows:children": "A child has an id of its parent and its own history, which goes with the parent's.",
        "kit:workflows:continue": "continue_as_new keeps untaken events and waits for what runs.",
        "kit:workflows:cancel": "A cancel is durable, ends every kind of wait, reaches children, and is enforced after the grace.",
        "kit:workflows:payload": "An input, result or event over the limit is refused by name.",
        "kit:workflows:start": "A start validates id and input; a repeated one changes nothing, also after the end.",
    },
    # Access
    "services/auth/clients.md#access-for-client-apps": {
        "access:guide": "Every example of the guide for clients runs and prints what the guide says.",
    },
    "services/auth/clients.md#which-credential": {
        "access:scopes": "A token without the method's scope is refused.",
        "access:keys-never-mint-keys": "An API key cannot create keys.",
        "access:keys:scopes": "A key has at most the scopes that keys may have and its creator has.",
    },
    "services/auth/clients.md#errors": {
        "access:foreign-as-missing": "A foreign object answers as a missing one.",
        "access:budgets": "A key is charged once per turn; past its budget it is refused.",
    },
    "services/auth/clients.md#sharing": {
        "access:sharing": "Only an owner shares, by user, group and organization, and revokes.",
        "access:share-links": "A link grants its role to any user who opens it until it ends; only a keyed hash of its token is stored.",
    },
    "services/auth/clients.md#deleting-an-account": {
        "access:erasure": "DeleteAccount removes a user's data from every store, with a receipt.",
    },
    "services/contracts/auth/keys.py": {
        "access:keys:verify": "One call says whether a key is valid and what is left of its limits.",
        "access:keys:limits": "A key's rate and budget hold across replicas.",
        "access:keys:charges": "A cost is charged once per reference.",
        "access:keys:rotate": "Both secrets work during the grace period, the old one not after.",
        "access:keys:organization": "Only admins of an organization manage its keys.",
    },
    "services/contracts/auth/tokens.py": {
        "access:tokens:exchange": "A key is exchanged for a short-lived token with no more scopes.",
        "access:tokens:refresh": "A refresh token works once and returns the next.",
    },
    "services/contracts/auth/audit.py": {
        "access:audit:own": "Only the owner of a log reads its security events.",
        "access:audit:once": "An event with a reference is recorded once.",
    },
    "services/contracts/auth/authorization.py": {
        "access:relations": "Tuples are written all or none, repeatably, for ids of any user.",
        "access:revoked-at-once": "The first fresh check after a revocation denies.",
        "access:object-deletion": "A deleted object leaves no tuple and no link.",
    },
    "services/auth/README.md": {
        "access:keys:secret": "Keys have at least 160 random bits, a prefix and a checksum.",
        "access:keys:hidden": "A secret is returned once: neither database nor log has it.",
        "access:keys:timing": "An unknown key takes as long to refuse as a wrong secret.",
        "access:keys:revoke": "A revoked key is refused by every replica, and so are its tokens.",
        "access:tokens:reuse": "Reuse ends the session, except the previous token once within 10 s.",
        "access:tokens:revoke": "Sign-out ends the session and lists its tokens as revoked.",
        "access:model": "The model is a DSL file, and grants each role what its table says.",
        "access:model-mutation": "Without any part of any line of the model a test fails.",
        "access:model-pinned": "Replicas that start together make one store and one model; a new model is written at start, and pinned.",
    },
    "services/decisions/0007-relationship-tuples-follow-objects.md": {
        "access:keys:ownership": "The creator of a key manages it, also if the process dies before the tuple is written.",
        "access:outbox": "Tuples committed with an object are delivered, also if the process dies in between.",
        "access:tuples-follow-objects": "An owner tuple is written and deleted with its object, across kills.",
    },
    "services/decisions/0011-access-change-feed.md": {
        "access:cache": "A permission is cached until a change affects it, and 5 s without the feed.",
        "access:feed": "A removal of access is in the feed before it is acknowledged.",
    },
    "services/decisions/0008-cached-access.md": {
        "access:rate-limits": "A user's rate is exact across processes, and limited while Valkey is down.",
    },
    "services/decisions/0006-callers-are-authenticated-by-certificates.md": {
        "access:proven-callers": "With mTLS a caller's app-id is authenticated, and calls without a policy are refused.",
    },
    "README.md#sign-in-and-access": {
        "access:stream-recheck": "A revocation ends a live stream within 10 s; others cost it nothing.",
    },
    "services/edge/README.md#behaviour": {
        "access:edge:keys": "A key is accepted in either header, as the only credential, never in a query, and no log shows it.",
        "access:edge:revocation": "A revoked key, its tokens and its streams end at the edge within 5 s.",
    },
    "services/README.md#access": {
        "access:fail-closed": "If an access check cannot be made, the answer is UNAVAILABLE.",
        "access:matrix": "Every operation answers every principal as the contract says; one without a row fails.",
        "access:no-leaks": "No reply shows data of another user.",
        "access:policies": "Which Dapr APIs and methods an app may call follows from the contracts.",
        "access:trusted-apps": "A back end that the operator names may call every user-facing method for any user, and no internal one; audit names it.",
        "access:zero-trust": "Apps and sidecars require their token; no path reaches an internal method.",
    },
    "services/calling-from-other-apps.md#calling-yocaso-from-other-dapr-apps": {
        "dapr:foreign-apps": "A Dapr app in any language calls the edge with a user's token, or an app as a trusted back end, and resumes streams.",
        "dapr:foreign-streams": "Through the edge, the stream of another Dapr app ends with `reconnect` before its sidecar cuts it.",
        "dapr:guide": "The examples of the guide for other Dapr apps are those of programs that the tests run.",
        "dapr:sidecar": "`yocaso sidecar` runs a sidecar for an app beside a running platform, with an identity of its own under mTLS.",
    },
    # Gates
    "CONTRIBUTING.md#what-a-change-must-bring": {
        "gates:mutants": "Without any of the guards of an invariant a named test fails, by what it saw and not by a timeout.",
    },
    "CONTRIBUTING.md#the-tests": {
        "gates:lanes": "Stages run side by side; no two stacks of the tests share a port.",
        "gates:progress": "While a run lasts, a line at least every 30 s says what runs and how far it is.",
        "gates:budgets": "A stage over its committed budget fails the run, which lists the slowest tests.",
        "gates:time-limit": "A run ends within its time limit with its summary; what was stopped or not run has failed.",
        "gates:changed": "`--changed` runs the gates and the tests that depend on a change, and says what it left out.",
        "gates:host-platform": "e2e tests run against a running `yocaso up`; those that need a platform of their own are counted.",
    },
    "tests/requirements/README.md#requirements": {
        "gates:requirements": "Each promise has a source and a test, no test claims more than five, and deferred rows are listed and claimed by none.",
    },
    "services/edge/README.md#tests": {
        "gates:fuzz": "Each parser of the edge has a fuzz target with a committed corpus, which every run of the Go tests repeats.",
        "gates:race": "Go tests run with the race detector where a C compiler is installed, and say so where none is.",
    },
    "services/README.md#layout-of-an-app": {
        "gates:size": "No file over 400 lines, no function over 60.",
        "gates:layout": "Each service folder has the known file names and a README.",
    },
}
