"""Sessions without Firebase."""

from sqlalchemy import insert

from services.auth.adapters.hashing import REFRESH_TOKENS, KeyedHash, random_base62
from services.auth.domain.sessions import SESSION_LIFE, SID_LENGTH, Session, new_refresh_token
from services.auth.tables import sessions
from services.contracts.apps import USER_SCOPES
from services.kit.clock import utc_now
from services.kit.storage.db import Database


async def insert_session(database_url: str, key_secret: str, user: str) -> str:
    """Insert the session of a sign-in, and return its refresh token."""
    digest = KeyedHash(key_secret, REFRESH_TOKENS)
    now, sid = utc_now(), random_base62(SID_LENGTH)
    token = new_refresh_token(sid, random_base62, digest)
    session = Session(
        sid=sid,
        user_id=user,
        email=f"{user}@example.com",
        scopes=list(USER_SCOPES),
        authenticated_at=now,
        created_at=now,
        expires_at=now + SESSION_LIFE,
        digest=digest(token),
    )
    database = Database(database_url)
    async with database.transaction() as connection:
        await connection.execute(insert(sessions).values(session.model_dump()))
    await database.close()
    return token
