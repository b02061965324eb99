"""Who may do what: `yocaso.auth.v1.AuthorizationService`, over OpenFGA."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from services.contracts.paging import Cursor, PageSize
from services.kit.contract import Empty, Int64, Message, RpcService, Timestamp
from services.kit.errors import ErrorCode

SHARING_READ: Final = "sharing:read"
SHARING_WRITE: Final = "sharing:write"

Id = r"[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}"
ObjectRef = Annotated[str, StringConstraints(pattern=rf"^[a-z_]{{1,40}}:{Id}$")]
"""An object, such as `conversation:conv_…`; the id is ours, whatever OpenFGA allows."""
SubjectRef = Annotated[str, StringConstraints(pattern=rf"^[a-z_]{{1,40}}:{Id}(#[a-z_]{{1,40}})?$")]
"""A user, or everybody who has a relation to an object: `user:ada`, `organization:acme#member`."""
Relation = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]

MAX_WRITES: Final = 50
"""How many facts one request makes true, and how many untrue."""

OWNER: Final = "owner"
EDITOR: Final = "editor"
VIEWER: Final = "viewer"
ADMIN: Final = "admin"
MEMBER: Final = "member"


class RelationTuple(Message):
    """A fact: this subject has this relation to this object."""

    subject: SubjectRef
    relation: Relation
    object: ObjectRef


class CheckRequest(RelationTuple):
    """Asks whether a fact follows. `fresh` sees every write that was acknowledged before."""

    fresh: bool = False


class CheckResponse(Message):
    """Whether it does."""

    allowed: bool


class BatchCheckRequest(Message):
    """Several questions at once."""

    checks: Annotated[list[RelationTuple], Field(min_length=1, max_length=50)]
    fresh: bool = False


class BatchCheckResponse(Message):
    """Answers in the order of the questions."""

    allowed: list[bool]


class ListObjectsRequest(Message):
    """Asks which objects of a type a subject has a relation to; at most 1,000."""

    subject: SubjectRef
    relation: Relation
    type: Relation
    fresh: bool = False


class ListObjectsResponse(Message):
    """Objects, in no order."""

    objects: list[str]


class ListUsersRequest(Message):
    """Asks which users have a relation to an object; at most 1,000."""

    relation: Relation
    object: ObjectRef
    fresh: bool = False


class ListUsersResponse(Message):
    """Subjects `user:…`, in no order."""

    subjects: list[str]


class ExpandRequest(Message):
    """Asks why: which subjects and which other relations give a relation to an object."""

    relation: Relation
    object: ObjectRef


class ExpandNode(Message):
    """A step of the explanation: subjects that have it directly, or what it is computed from."""

    name: str
    operation: str
    subjects: list[str] = Field(default_factory=list)
    computed_from: list[str] = Field(default_factory=list)
    children: list["ExpandNode"] = Field(default_factory=list["ExpandNode"])


class ExpandResponse(Message):
    """The root of the explanation."""

    root: ExpandNode


class WriteTuplesRequest(Message):
    """Makes facts true and facts untrue, all or none; what is so already is left as it is."""

    writes: Annotated[list[RelationTuple], Field(max_length=MAX_WRITES)] = Field(
        default_factory=list[RelationTuple]
    )
    deletes: Annotated[list[RelationTuple], Field(max_length=MAX_WRITES)] = Field(
        default_factory=list[RelationTuple]
    )


class ForgetObjectRequest(Message):
    """Removes every fact about an object, with its share links; repeatable."""

    object: ObjectRef


class ReadChangesRequest(Message):
    """A page of the history of facts, oldest first."""

    type: Relation | None = None
    limit: PageSize = 50
    cursor: Cursor | None = None


class TupleChange(Message):
    """A fact that became true (`written`) or untrue."""

    tuple: RelationTuple
    written: bool
    at: Timestamp


class ReadChangesResponse(Message):
    """`cursor` continues after the last of these, now or later."""

    changes: list[TupleChange]
    cursor: str | None = None


class ListAccessChangesRequest(Message):
    """Asks what may have turned from a yes to a no since a position of the feed; without one, where the feed is."""

    after: Annotated[Int64, Field(ge=0)] | None = None


class AccessChange(Message):
    """Checks of this user about this object may be answered no now; absent stands for any."""

    user_id: str | None = None
    object: ObjectRef | None = None


class ListAccessChangesResponse(Message):
    """Changes in order, and the position to ask from next. Too many to tell is one change of everything."""

    position: Int64
    changes: list[AccessChange]


class ShareRole(StrEnum):
    """What a share allows: VIEWER reads, EDITOR also writes."""

    VIEWER = "VIEWER"
    EDITOR = "EDITOR"


Shareable = Annotated[str, StringConstraints(pattern=rf"^(conversation|file|run):{Id}$")]
ShareSubject = Annotated[
    str, StringConstraints(pattern=rf"^(user:{Id}|(organization|group):{Id}#member)$")
]
LinkId = Annotated[str, StringConstraints(pattern=r"^link_[0-9a-z]{26,32}$")]


class ShareRequest(Message):
    """Shares an object with a user, or with the members of an organization or group."""

    object: Shareable
    subject: ShareSubject
    role: ShareRole = ShareRole.VIEWER


class UnshareRequest(Message):
    """Takes every role of a subject away; the owner's stays."""

    object: Shareable
    subject: ShareSubject


class SharedObjectRequest(Message):
    """Names an object that can be shared."""

    object: Shareable


class Share(Message):
    """Who has an object beside its owner, by a role given directly."""

    subject: str
    role: ShareRole


class ShareLink(Message):
    """A link that gives a role to whoever opens it signed in; `token` is shown once, when it is made."""

    link_id: str
    object: str
    role: ShareRole
    created_at: Timestamp
    expires_at: Timestamp | None = None
    token: str | None = None


class ListSharesResponse(Message):
    """Direct shares, and links that work."""

    shares: list[Share]
    links: list[ShareLink]


class CreateShareLinkRequest(SharedObjectRequest):
    """Makes a link."""

    role: ShareRole = ShareRole.VIEWER
    expires_at: Timestamp | None = None


class RevokeShareLinkRequest(SharedObjectRequest):
    """Ends a link, and what those have who opened it."""

    link_id: LinkId


class OpenShareLinkRequest(Message):
    """Opens a link in the caller's name."""

    token: Annotated[str, StringConstraints(pattern=r"^yl_[A-Za-z0-9]{20,80}$")]


class OpenShareLinkResponse(Message):
    """What the link leads to."""

    object: str
    role: ShareRole


class ListSharedWithMeRequest(Message):
    """Asks what others have shared with the caller."""

    type: Annotated[str, StringConstraints(pattern=r"^(conversation|file|run)$")] = "conversation"


_ASKED = (ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE)
_SHARING = (
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.NOT_FOUND,
    ErrorCode.UNAVAILABLE,
)
AUTHORIZATION_SERVICE: Final = RpcService(
    "yocaso.auth.v1.AuthorizationService", "Who may do what with which object, and sharing."
)
CHECK: Final = AUTHORIZATION_SERVICE.unary(
    "Check", CheckRequest, CheckResponse, "Say whether a fact follows", raises=_ASKED, internal=True
)
BATCH_CHECK: Final = AUTHORIZATION_SERVICE.unary(
    "BatchCheck",
    BatchCheckRequest,
    BatchCheckResponse,
    "Answer several checks",
    raises=_ASKED,
    internal=True,
)
LIST_OBJECTS: Final = AUTHORIZATION_SERVICE.unary(
    "ListObjects",
    ListObjectsRequest,
    ListObjectsResponse,
    "List a subject's objects",
    raises=_ASKED,
    internal=True,
)
LIST_USERS: Final = AUTHORIZATION_SERVICE.unary(
    "ListUsers",
    ListUsersRequest,
    ListUsersResponse,
    "List an object's users",
    raises=_ASKED,
    internal=True,
)
EXPAND: Final = AUTHORIZATION_SERVICE.unary(
    "Expand", ExpandRequest, ExpandResponse, "Explain a relation", raises=_ASKED, internal=True
)
WRITE_TUPLES: Final = AUTHORIZATION_SERVICE.unary(
    "WriteTuples", WriteTuplesRequest, Empty, "Write and delete facts", raises=_ASKED, internal=True
)
FORGET_OBJECT: Final = AUTHORIZATION_SERVICE.unary(
    "ForgetObject",
    ForgetObjectRequest,
    Empty,
    "Delete every fact about an object",
    raises=_ASKED,
    internal=True,
)
READ_CHANGES: Final = AUTHORIZATION_SERVICE.unary(
    "ReadChanges",
    ReadChangesRequest,
    ReadChangesResponse,
    "Read the history of facts",
    raises=_ASKED,
    internal=True,
)
LIST_ACCESS_CHANGES: Final = AUTHORIZATION_SERVICE.unary(
    "ListAccessChanges",
    ListAccessChangesRequest,
    ListAccessChangesResponse,
    "List whose access was taken away since a position",
    raises=_ASKED,
    internal=True,
)
SHARE: Final = AUTHORIZATION_SERVICE.unary(
    "Share", ShareRequest, Share, "Share an object", raises=_SHARING, scope=SHARING_WRITE
)
UNSHARE: Final = AUTHORIZATION_SERVICE.unary(
    "Unshare", UnshareRequest, Empty, "Stop sharing an object", raises=_SHARING, scope=SHARING_WRITE
)
LIST_SHARES: Final = AUTHORIZATION_SERVICE.unary(
    "ListShares",
    SharedObjectRequest,
    ListSharesResponse,
    "List who has an object",
    raises=_SHARING,
    scope=SHARING_READ,
)
CREATE_SHARE_LINK: Final = AUTHORIZATION_SERVICE.unary(
    "CreateShareLink",
    CreateShareLinkRequest,
    ShareLink,
    "Make a link that shares an object",
    raises=_SHARING,
    scope=SHARING_WRITE,
)
REVOKE_SHARE_LINK: Final = AUTHORIZATION_SERVICE.unary(
    "RevokeShareLink",
    RevokeShareLinkRequest,
    Empty,
    "End a link and what it gave",
    raises=_SHARING,
    scope=SHARING_WRITE,
)
OPEN_SHARE_LINK: Final = AUTHORIZATION_SERVICE.unary(
    "OpenShareLink",
    OpenShareLinkRequest,
    OpenShareLinkResponse,
    "Open a link",
    raises=_SHARING,
    scope=SHARING_WRITE,
)
LIST_SHARED_WITH_ME: Final = AUTHORIZATION_SERVICE.unary(
    "ListSharedWithMe",
    ListSharedWithMeRequest,
    ListObjectsResponse,
    "List what others share with the caller",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAUTHENTICATED, ErrorCode.UNAVAILABLE),
    scope=SHARING_READ,
)
