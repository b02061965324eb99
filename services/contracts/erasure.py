"""Erasure of a user: the activity that every app hosts which keeps something of a user."""

from typing import Final

from pydantic import BaseModel, Field

from services.kit.references import ActivityRef

ERASE_USER: Final = "EraseUser"


class EraseUserInput(BaseModel):
    """Erase all that an app has of a user, or with `count_only` only count it; repeatable.

    The workflow counts first and keeps the result, so the receipt is right whatever dies in between.
    """

    user_id: str
    deletion_id: str
    count_only: bool = False


class ErasedUser(BaseModel):
    """`done` is false while something is left: the workflow asks again. `found` is what was counted, by kind."""

    done: bool
    found: dict[str, int] = Field(default_factory=dict[str, int])


def eraser_of(app_id: str) -> ActivityRef[EraseUserInput, ErasedUser]:
    """The activity by which an app erases a user."""
    return ActivityRef(ERASE_USER, app_id=app_id, input=EraseUserInput, output=ErasedUser)
