"""Firebase users as the bridge knows them: what it is asked, and what it answers."""

from enum import StrEnum

from services.kit.contract import Message, Timestamp


class FirebaseAccount(Message):
    """What Firebase said of a user: `existing` is false for one that was deleted."""

    looked_up_at: Timestamp
    existing: bool
    disabled: bool = False
    tokens_valid_after: Timestamp | None = None


class AdmitFirebaseUserCommand(Message):
    """A sign-in whose token has been verified; `authenticated_at` is when the person proved who they are."""

    project_id: str
    uid: str
    email: str | None = None
    authenticated_at: Timestamp


class FirebaseVerdict(StrEnum):
    """Whether a sign-in counts; UNKNOWN until Firebase has been asked again."""

    VALID = "VALID"
    REVOKED = "REVOKED"
    DISABLED = "DISABLED"
    DELETED = "DELETED"
    UNKNOWN = "UNKNOWN"


class FirebaseAdmission(Message):
    """The answer to a sign-in."""

    verdict: FirebaseVerdict


class FirebaseLink(Message):
    """The Firebase user that one of ours is."""

    project_id: str
    uid: str
    email: str | None = None
    first_sign_in: Timestamp
    last_sign_in: Timestamp


class FirebaseLinkResponse(Message):
    """The link, absent where a user of ours never came from Firebase."""

    link: FirebaseLink | None = None
