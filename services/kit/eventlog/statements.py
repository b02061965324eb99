"""SQL statements of the event log; each is one transaction."""

from typing import Final

HEAD_COLUMNS: Final = (
    "id, kind, owner, subject, first_seq, last_seq, attempt, host, deadline, closed_at, "
    "cancel_requested_at, cancel_acknowledged_at"
)

# $1 id, $2 kind, $3 owner, $4 subject, $5 input, $6 seconds until recovery
OPEN: Final = """
    INSERT INTO events.streams (id, kind, owner, subject, input, due_at)
    VALUES ($1, $2, $3, $4, $5::text::json, now() + make_interval(secs => $6::double precision))
    ON CONFLICT (id) DO NOTHING RETURNING id
"""

# as OPEN, but: $6 host, $7 deadline, $8 types, $9 data, $10 times, $11 now by the clock of the deadline.
# Deadlines are stored by the clock of Postgres, as recovery compares them with it: that of a host may be wrong.
OPEN_WITH_ATTEMPT: Final = """
    WITH head AS (
        INSERT INTO events.streams
            (id, kind, owner, subject, input, host, deadline, attempt, last_seq)
        VALUES ($1, $2, $3, $4, $5::text::json, $6,
            now() + ($7::timestamptz - $11::timestamptz), 1, cardinality($8::text[]))
        ON CONFLICT (id) DO NOTHING RETURNING id
    ), rows AS (
        INSERT INTO events.events (stream_id, seq, type, attempt, data, created_at)
        SELECT head.id, e.ord, e.type, 1, e.data::json, e.at
        FROM head, unnest($8::text[], $9::text[], $10::timestamptz[])
            WITH ORDINALITY AS e(type, data, at, ord)
    )
    SELECT id FROM head
"""

# $2 attempt; deletes only a stream of this attempt with at most its opening event
DISCARD: Final = """
    WITH gone AS (
        DELETE FROM events.streams s WHERE id = $1 AND attempt = $2 AND closed_at IS NULL
            AND NOT EXISTS (
                SELECT FROM events.events e
                WHERE e.stream_id = $1 AND e.seq > 1
            )
        RETURNING id
    )
    DELETE FROM events.events WHERE stream_id IN (SELECT id FROM gone)
"""

HEAD: Final = f"SELECT {HEAD_COLUMNS} FROM events.streams WHERE id = $1"

# $2 host, $3 deadline, $4 now by the clock of the host, by which the deadline is returned as well
BEGIN_ATTEMPT: Final = """
    UPDATE events.streams
    SET attempt = attempt + 1, host = $2,
        deadline = COALESCE(deadline, now() + ($3::timestamptz - $4::timestamptz))
    WHERE id = $1 AND closed_at IS NULL AND host IS NULL
    RETURNING attempt, last_seq, cancel_requested_at IS NOT NULL, kind, owner, subject,
        $4::timestamptz + (deadline - now()), input::text
"""

# Separate from BEGIN_ATTEMPT, whose snapshot lacks checkpoints that were committed while it waited for the row lock.
CHECKPOINTS: Final = "SELECT step, value::text, seq FROM events.checkpoints WHERE stream_id = $1"

# per append: $1 ids, $2 attempts, $3 numbers of events, $4 closes, $5 steps, $6 values, $7 owed, $8 expected last seq,
# which makes a retry safe, or NULL;
# per event: $9 ordinal of its append from 1, $10 ordinal in it from 1, $11 types, $12 data, $13 times
APPEND: Final = """
    WITH head AS (
        UPDATE events.streams s
        SET last_seq = s.last_seq + o.events,
            closed_at = CASE WHEN o.closes THEN now() END,
            host = CASE WHEN o.closes THEN NULL ELSE s.host END,
            owed = o.owed::json,
            due_at = CASE WHEN o.closes THEN now() + interval '10 s' ELSE s.due_at END
        FROM unnest($1::text[], $2::int[], $3::int[], $4::boolean[], $5::text[], $6::text[], $7::text[],
            $8::bigint[]) WITH ORDINALITY AS o(id, attempt, events, closes, step, value, owed, after, ord)
        WHERE s.id = o.id AND s.attempt = o.attempt AND s.closed_at IS NULL
            AND (o.after IS NULL OR s.last_seq = o.after)
        RETURNING s.id, s.attempt, s.last_seq, s.cancel_requested_at IS NOT NULL AS cancel,
            o.ord, o.events, o.step, o.value
    ), rows AS (
        INSERT INTO events.events (stream_id, seq, type, attempt, data, created_at)
        SELECT head.id, head.last_seq - head.events + e.place, e.type, head.attempt, e.data::json, e.at
        FROM unnest($9::int[], $10::int[], $11::text[], $12::text[], $13::timestamptz[])
            AS e(ord, place, type, data, at)
        JOIN head ON head.ord = e.ord
    ), point AS (
        INSERT INTO events.checkpoints (stream_id, step, seq, attempt, value)
        SELECT id, step, last_seq, attempt, value::json FROM head WHERE step IS NOT NULL
    )
    SELECT ord, last_seq, cancel FROM head
"""

# per append with unknown outcome: $1 ids, $2 attempts, $3 the last seq if it was written
WRITTEN: Final = """
    SELECT o.ord, s.last_seq, s.cancel_requested_at IS NOT NULL
    FROM unnest($1::text[], $2::int[], $3::bigint[]) WITH ORDINALITY AS o(id, attempt, last_seq, ord)
    JOIN events.streams s ON s.id = o.id AND s.attempt = o.attempt AND s.last_seq = o.last_seq
"""

# $2 type, $3 data, $4 time, $5 owed
CLOSE: Final = """
    WITH head AS (
        UPDATE events.streams
        SET last_seq = last_seq + 1, attempt = attempt + 1, closed_at = now(), host = NULL,
            owed = $5::text::json, due_at = now()
        WHERE id = $1 AND closed_at IS NULL
        RETURNING last_seq, attempt
    )
    INSERT INTO events.events (stream_id, seq, type, attempt, data, created_at)
    SELECT $1, last_seq, $2::text, attempt, $3::text::json, $4 FROM head
    RETURNING seq, attempt
"""

REQUEST_CANCEL: Final = """
    UPDATE events.streams SET cancel_requested_at = COALESCE(cancel_requested_at, now()),
        due_at = CASE WHEN host IS NULL THEN now() ELSE due_at END
    WHERE id = $1 AND closed_at IS NULL
    RETURNING host
"""

# $2 attempt
ACKNOWLEDGE_CANCEL: Final = """
    UPDATE events.streams SET cancel_acknowledged_at = COALESCE(cancel_acknowledged_at, now())
    WHERE id = $1 AND attempt = $2
"""

# $2 attempt, $3 seconds until recovery looks at it
RELEASE: Final = """
    UPDATE events.streams
    SET host = NULL, due_at = now() + make_interval(secs => $3::double precision)
    WHERE id = $1 AND attempt = $2 AND closed_at IS NULL
"""

# $2 after, $3 limit
READ: Final = """
    SELECT seq, type, attempt, data::text, created_at FROM events.events
    WHERE stream_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""

# $1 host
HOSTED: Final = """
    SELECT id, attempt, cancel_requested_at IS NOT NULL FROM events.streams
    WHERE host = $1 AND closed_at IS NULL
"""

# $1 host
CANCELS: Final = """
    SELECT id FROM events.streams
    WHERE host = $1 AND closed_at IS NULL AND cancel_requested_at IS NOT NULL
        AND cancel_acknowledged_at IS NULL
"""

# $1 ids
LAST_SEQS: Final = "SELECT id, last_seq FROM events.streams WHERE id = ANY($1::text[])"

# $1 ids
FORGET: Final = """
    WITH gone AS (DELETE FROM events.streams WHERE id = ANY($1::text[])),
         points AS (DELETE FROM events.checkpoints WHERE stream_id = ANY($1::text[]))
    DELETE FROM events.events WHERE stream_id = ANY($1::text[])
"""

# $1 subject
LIST_BY_SUBJECT: Final = (
    f"SELECT {HEAD_COLUMNS} FROM events.streams WHERE subject = $1 ORDER BY created_at LIMIT 500"
)

LIST_BY_OWNER: Final = (
    f"SELECT {HEAD_COLUMNS} FROM events.streams WHERE owner = $1 ORDER BY created_at LIMIT 500"
)

CLEAR_OWNER: Final = "UPDATE events.streams SET owner = '' WHERE id = ANY($1)"

# $1 host, $2 its lock
ENTER: Final = """
    INSERT INTO events.hosts (id, lock_key) VALUES ($1, $2)
    ON CONFLICT (id) DO UPDATE SET beat_at = now()
"""

HEARTBEAT: Final = "UPDATE events.hosts SET beat_at = now() WHERE id = $1"

LEAVE: Final = "DELETE FROM events.hosts WHERE id = $1"

# $1 own host, $2 lease seconds, $3 seconds after which a host that holds its lock counts as frozen.
# The lock that this statement takes on a dead host is released at its end.
DEAD_HOSTS: Final = """
    SELECT id FROM events.hosts
    WHERE id <> $1 AND beat_at < now() - make_interval(secs => $2::double precision)
        AND pg_postmaster_start_time() < now() - make_interval(secs => 2 * $2::double precision)
        AND (beat_at < now() - make_interval(secs => $3::double precision)
            OR pg_try_advisory_xact_lock(lock_key))
"""

# $1 hosts
ABANDON: Final = """
    WITH orphans AS (
        UPDATE events.streams SET host = NULL, due_at = now()
        WHERE host = ANY($1::text[]) AND closed_at IS NULL RETURNING id
    ), gone AS (DELETE FROM events.hosts WHERE id = ANY($1::text[]))
    SELECT count(*) FROM orphans
"""

# A host that shut down without releasing its streams has no row in events.hosts.
ABANDON_WITHOUT_HOST_ROW: Final = """
    UPDATE events.streams s SET host = NULL, due_at = now()
    WHERE closed_at IS NULL AND host IS NOT NULL
        AND NOT EXISTS (SELECT FROM events.hosts h WHERE h.id = s.host)
"""

# $1 seconds of grace
EXPIRE: Final = """
    UPDATE events.streams SET host = NULL, due_at = now()
    WHERE closed_at IS NULL AND host IS NOT NULL
        AND deadline < now() - make_interval(secs => $1::double precision)
"""

# $1 kinds, $2 limit, $3 seconds until the next recovery, which grow with the stream's age up to $4
CLAIM_DUE: Final = f"""
    UPDATE events.streams SET due_at = now() + make_interval(secs => LEAST($4::double precision,
        GREATEST($3::double precision, extract(epoch FROM now() - created_at) / 4)))
    WHERE id IN (
        SELECT id FROM events.streams
        WHERE kind = ANY($1::text[]) AND closed_at IS NULL AND host IS NULL AND due_at <= now()
        ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    RETURNING {HEAD_COLUMNS}
"""

# $1 kinds, $2 limit, $3 seconds until the next try
CLAIM_OWED: Final = """
    UPDATE events.streams SET due_at = now() + make_interval(secs => $3::double precision)
    WHERE id IN (
        SELECT id FROM events.streams
        WHERE kind = ANY($1::text[]) AND owed IS NOT NULL AND due_at <= now()
        ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, kind, owed::text
"""

SETTLE: Final = "UPDATE events.streams SET owed = NULL WHERE id = $1"
