"""User erasure: the activity hosted by every app that stores user data."""

from typing import Final

from pydantic import BaseModel, Field

from services.kit.references import ActivityRef

ERASE_USER: Final = "EraseUser"


class EraseUserInput(BaseModel):
    """Erases a user's data in one app, or counts it if `count_only`; repeatable.

    The workflow stores the counts before it erases, so a retry after a crash does not lower them.
    """

    user_id: str
    deletion_id: str
    count_only: bool = False


class ErasedUser(BaseModel):
    """`done` is false while data is left: the workflow calls again. `found` is the count by kind."""

    done: bool
    found: dict[str, int] = Field(default_factory=dict[str, int])


def eraser_of(app_id: str) -> ActivityRef[EraseUserInput, ErasedUser]:
    """The `EraseUser` activity of an app."""
    return ActivityRef(ERASE_USER, app_id=app_id, input=EraseUserInput, output=ErasedUser)
