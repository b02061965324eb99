"""The event log's statements; each is one transaction by itself."""

from typing import Final

from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TEXT

_HEAD_COLUMNS: Final = (
    "id, owner, subject, last_seq, attempt, closed_at, cancel_requested_at, cancel_acknowledged_at"
)

OPEN: Final[TextClause] = text(
    """
    INSERT INTO events.streams (id, kind, owner, subject) VALUES (:id, :kind, :owner, :subject)
    ON CONFLICT (id) DO NOTHING RETURNING id
    """
)

DISCARD_UNUSED: Final[TextClause] = text(
    "DELETE FROM events.streams WHERE id = :id AND last_seq = 0 AND attempt = 0"
)

HEAD: Final[TextClause] = text(f"SELECT {_HEAD_COLUMNS} FROM events.streams WHERE id = :id")

BEGIN_ATTEMPT: Final[TextClause] = text(
    """
    UPDATE events.streams SET attempt = attempt + 1, driven_at = now()
    WHERE id = :id AND closed_at IS NULL AND (attempt = 0 OR NOT CAST(:first AS boolean))
    RETURNING attempt, last_seq, cancel_requested_at,
        (SELECT json_object_agg(c.step, c.value) FROM events.checkpoints c WHERE c.stream_id = id),
        (SELECT COALESCE(max(c.seq), 0) FROM events.checkpoints c WHERE c.stream_id = id)
    """
)

APPEND: Final[TextClause] = text(
    """
    WITH head AS (
        UPDATE events.streams
        SET last_seq = last_seq + :count, driven_at = now(),
            closed_at = CASE WHEN CAST(:close AS boolean) THEN now() END
        WHERE id = :id AND attempt = :attempt AND closed_at IS NULL
        RETURNING last_seq, cancel_requested_at
    ), rows AS (
        INSERT INTO events.events (stream_id, seq, type, attempt, data)
        SELECT :id, head.last_seq - :count + e.ord, e.type, :attempt, CAST(e.data AS json)
        FROM head, unnest(:types, :data) WITH ORDINALITY AS e(type, data, ord)
    ), point AS (
        INSERT INTO events.checkpoints (stream_id, step, seq, attempt, value)
        SELECT :id, CAST(:step AS text), head.last_seq, :attempt, CAST(:value AS json)
        FROM head WHERE CAST(:step AS text) IS NOT NULL
    )
    SELECT last_seq, cancel_requested_at FROM head
    """
).bindparams(bindparam("types", type_=ARRAY(TEXT)), bindparam("data", type_=ARRAY(TEXT)))

CLOSE: Final[TextClause] = text(
    """
    WITH head AS (
        UPDATE events.streams SET last_seq = last_seq + 1, attempt = attempt + 1, closed_at = now()
        WHERE id = :id AND closed_at IS NULL
        RETURNING last_seq, attempt
    )
    INSERT INTO events.events (stream_id, seq, type, attempt, data)
    SELECT :id, last_seq, CAST(:type AS text), attempt, CAST(:data AS json) FROM head
    RETURNING seq
    """
)

REQUEST_CANCEL: Final[TextClause] = text(
    """
    UPDATE events.streams SET cancel_requested_at = now()
    WHERE id = :id AND closed_at IS NULL AND cancel_requested_at IS NULL
    """
)

ACKNOWLEDGE_CANCEL: Final[TextClause] = text(
    """
    UPDATE events.streams SET cancel_acknowledged_at = COALESCE(cancel_acknowledged_at, now())
    WHERE id = :id AND attempt = :attempt
    """
)

PULSE: Final[TextClause] = text(
    """
    UPDATE events.streams SET driven_at = now()
    WHERE id = :id AND attempt = :attempt AND closed_at IS NULL
    RETURNING cancel_requested_at
    """
)

BUSY: Final[TextClause] = text(
    """
    SELECT closed_at IS NULL AND attempt > 0 AND driven_at > now() - make_interval(secs => :seconds)
    FROM events.streams WHERE id = :id
    """
)

RELEASE: Final[TextClause] = text(
    """
    UPDATE events.streams SET driven_at = now() - interval '1 minute'
    WHERE id = :id AND attempt = :attempt AND closed_at IS NULL
    """
)

READ: Final[TextClause] = text(
    """
    SELECT seq, type, attempt, CAST(data AS text), created_at FROM events.events
    WHERE stream_id = :id AND seq > :after ORDER BY seq LIMIT :limit
    """
)

CLAIM_IDLE: Final[TextClause] = text(
    f"""
    UPDATE events.streams SET driven_at = now()
    WHERE id IN (
        SELECT id FROM events.streams
        WHERE kind = :kind AND closed_at IS NULL AND driven_at < now() - make_interval(secs => :seconds)
        ORDER BY driven_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    RETURNING {_HEAD_COLUMNS}
    """
)

FORGET: Final[TextClause] = text(
    """
    WITH gone AS (DELETE FROM events.streams WHERE id = ANY(:ids)),
         points AS (DELETE FROM events.checkpoints WHERE stream_id = ANY(:ids))
    DELETE FROM events.events WHERE stream_id = ANY(:ids)
    """
).bindparams(bindparam("ids", type_=ARRAY(TEXT)))

OF_SUBJECT: Final[TextClause] = text(
    f"SELECT {_HEAD_COLUMNS} FROM events.streams WHERE subject = :subject ORDER BY created_at LIMIT 500"
)
