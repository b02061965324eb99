"""Who signed in elsewhere: the actor that keeps what is known of a Firebase user, and decides who may come in."""

from enum import StrEnum

from services.kit.contract import Empty, Message, Timestamp
from services.kit.dapr.actors import ActorInterface, actormethod


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


class FirebaseBridgeActorInterface(ActorInterface):
    """One user who comes from Firebase; the id is ours. It never calls Firebase: whoever calls the actor does."""

    @actormethod(name="Admit")
    async def admit(self, command: AdmitFirebaseUserCommand) -> FirebaseAdmission:
        """Decide by what is known, and link the user where the sign-in is VALID; repeatable."""
        ...

    @actormethod(name="Record")
    async def record(self, account: FirebaseAccount) -> Empty:
        """Keep what Firebase said; an older word changes nothing."""
        ...

    @actormethod(name="ReadLink")
    async def read_link(self) -> FirebaseLinkResponse:
        """Read the link."""
        ...

    @actormethod(name="Unlink")
    async def unlink(self) -> Empty:
        """Forget the person: the link and all that came with it; repeatable."""
        ...
