"""The event log's statements; each is one transaction by itself."""

from typing import Final

_HEAD_COLUMNS: Final = (
    "id, owner, subject, last_seq, attempt, closed_at, cancel_requested_at, cancel_acknowledged_at"
)

# $1 id, $2 kind, $3 owner, $4 subject
OPEN: Final = """
    INSERT INTO events.streams (id, kind, owner, subject) VALUES ($1, $2, $3, $4)
    ON CONFLICT (id) DO NOTHING RETURNING id
"""

DISCARD_UNUSED: Final = "DELETE FROM events.streams WHERE id = $1 AND last_seq = 0 AND attempt = 0"

HEAD: Final = f"SELECT {_HEAD_COLUMNS} FROM events.streams WHERE id = $1"

# $2 whether only a first attempt is wanted
BEGIN_ATTEMPT: Final = """
    UPDATE events.streams SET attempt = attempt + 1, driven_at = now()
    WHERE id = $1 AND closed_at IS NULL AND (attempt = 0 OR NOT $2::boolean)
    RETURNING attempt, last_seq, cancel_requested_at,
        (SELECT json_object_agg(c.step, c.value) FROM events.checkpoints c WHERE c.stream_id = id),
        (SELECT COALESCE(max(c.seq), 0) FROM events.checkpoints c WHERE c.stream_id = id)
"""

# $2 attempt, $3 how many, $4 whether one is terminal, $5 types, $6 data, $7 step, $8 the step's value
APPEND: Final = """
    WITH head AS (
        UPDATE events.streams
        SET last_seq = last_seq + $3::bigint, driven_at = now(),
            closed_at = CASE WHEN $4::boolean THEN now() END
        WHERE id = $1 AND attempt = $2 AND closed_at IS NULL
        RETURNING last_seq, cancel_requested_at
    ), rows AS (
        INSERT INTO events.events (stream_id, seq, type, attempt, data)
        SELECT $1, head.last_seq - $3::bigint + e.ord, e.type, $2, e.data::json
        FROM head, unnest($5::text[], $6::text[]) WITH ORDINALITY AS e(type, data, ord)
    ), point AS (
        INSERT INTO events.checkpoints (stream_id, step, seq, attempt, value)
        SELECT $1, $7::text, head.last_seq, $2, $8::text::json
        FROM head WHERE $7::text IS NOT NULL
    )
    SELECT last_seq, cancel_requested_at FROM head
"""

# $2 type, $3 data
CLOSE: Final = """
    WITH head AS (
        UPDATE events.streams SET last_seq = last_seq + 1, attempt = attempt + 1, closed_at = now()
        WHERE id = $1 AND closed_at IS NULL
        RETURNING last_seq, attempt
    )
    INSERT INTO events.events (stream_id, seq, type, attempt, data)
    SELECT $1, last_seq, $2::text, attempt, $3::text::json FROM head
    RETURNING seq
"""

REQUEST_CANCEL: Final = """
    UPDATE events.streams SET cancel_requested_at = now()
    WHERE id = $1 AND closed_at IS NULL AND cancel_requested_at IS NULL
"""

# $2 attempt
ACKNOWLEDGE_CANCEL: Final = """
    UPDATE events.streams SET cancel_acknowledged_at = COALESCE(cancel_acknowledged_at, now())
    WHERE id = $1 AND attempt = $2
"""

# $2 attempt
PULSE: Final = """
    UPDATE events.streams SET driven_at = now()
    WHERE id = $1 AND attempt = $2 AND closed_at IS NULL
    RETURNING cancel_requested_at
"""

# $2 seconds of silence after which an attempt counts as dead
OCCUPANCY: Final = """
    SELECT closed_at IS NOT NULL,
        attempt > 0 AND driven_at > now() - make_interval(secs => $2::double precision)
    FROM events.streams WHERE id = $1
"""

# $2 attempt, $3 seconds of silence; further back, a sweep would take the stream for abandoned between two attempts
RELEASE: Final = """
    UPDATE events.streams SET driven_at = now() - make_interval(secs => $3::double precision)
    WHERE id = $1 AND attempt = $2 AND closed_at IS NULL
"""

# $2 after, $3 limit
READ: Final = """
    SELECT seq, type, attempt, data::text, created_at FROM events.events
    WHERE stream_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""

# $1 kind, $2 seconds, $3 limit
CLAIM_IDLE: Final = f"""
    UPDATE events.streams SET driven_at = now()
    WHERE id IN (
        SELECT id FROM events.streams
        WHERE kind = $1 AND closed_at IS NULL
            AND driven_at < now() - make_interval(secs => $2::double precision)
        ORDER BY driven_at LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    RETURNING {_HEAD_COLUMNS}
"""

# $1 ids
FORGET: Final = """
    WITH gone AS (DELETE FROM events.streams WHERE id = ANY($1::text[])),
         points AS (DELETE FROM events.checkpoints WHERE stream_id = ANY($1::text[]))
    DELETE FROM events.events WHERE stream_id = ANY($1::text[])
"""

# $1 subject
OF_SUBJECT: Final = (
    f"SELECT {_HEAD_COLUMNS} FROM events.streams WHERE subject = $1 ORDER BY created_at LIMIT 500"
)

OF_OWNER: Final = (
    f"SELECT {_HEAD_COLUMNS} FROM events.streams WHERE owner = $1 ORDER BY created_at LIMIT 500"
)

DISOWN: Final = "UPDATE events.streams SET owner = '' WHERE id = ANY($1)"
