"""Access checks, relationship tuples and sharing: `yocaso.auth.v1.AuthorizationService`, over OpenFGA."""

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
"""An object, such as `conversation:conv_…`; its id pattern is stricter than OpenFGA's."""
SubjectRef = Annotated[str, StringConstraints(pattern=rf"^[a-z_]{{1,40}}:{Id}(#[a-z_]{{1,40}})?$")]
"""A user (`user:ada`) or a userset (`organization:acme#member`)."""
Relation = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]

MAX_WRITES: Final = 50
"""Maximum number of writes, and of deletes, in one request."""

OWNER: Final = "owner"
EDITOR: Final = "editor"
VIEWER: Final = "viewer"
ADMIN: Final = "admin"
MEMBER: Final = "member"


class RelationTuple(Message):
    """A relationship tuple: `subject` has `relation` to `object`."""

    subject: SubjectRef
    relation: Relation
    object: ObjectRef


class CheckRequest(RelationTuple):
    """Checks a relation. With `fresh`, the check sees every write acknowledged before it."""

    fresh: bool = False


class CheckResponse(Message):
    """Whether the subject has the relation, directly or derived."""

    allowed: bool


class BatchCheckRequest(Message):
    """Checks several relations; `fresh` as in `CheckRequest`."""

    checks: Annotated[list[RelationTuple], Field(min_length=1, max_length=50)]
    fresh: bool = False


class BatchCheckResponse(Message):
    """Results in the order of `checks`."""

    allowed: list[bool]


class ListObjectsRequest(Message):
    """Lists objects of `type` to which the subject has the relation; at most 1,000."""

    subject: SubjectRef
    relation: Relation
    type: Relation
    fresh: bool = False


class ListObjectsResponse(Message):
    """Objects such as `conversation:conv_…`, unordered."""

    objects: list[str]


class ListUsersRequest(Message):
    """Lists users with the relation to the object; at most 1,000."""

    relation: Relation
    object: ObjectRef
    fresh: bool = False


class ListUsersResponse(Message):
    """Subjects `user:…`, unordered."""

    subjects: list[str]


class ExpandRequest(Message):
    """Explains which subjects and relations grant a relation to an object."""

    relation: Relation
    object: ObjectRef


class ExpandNode(Message):
    """A node of the userset tree: direct `subjects`, or the relations it is computed from."""

    name: str
    operation: str
    subjects: list[str] = Field(default_factory=list)
    computed_from: list[str] = Field(default_factory=list)
    children: list["ExpandNode"] = Field(default_factory=list["ExpandNode"])


class ExpandResponse(Message):
    """The root of the userset tree."""

    root: ExpandNode


class WriteTuplesRequest(Message):
    """Writes and deletes tuples, all or none; writing an existing or deleting a missing tuple is no error."""

    writes: Annotated[list[RelationTuple], Field(max_length=MAX_WRITES)] = Field(
        default_factory=list[RelationTuple]
    )
    deletes: Annotated[list[RelationTuple], Field(max_length=MAX_WRITES)] = Field(
        default_factory=list[RelationTuple]
    )


class ForgetObjectRequest(Message):
    """Deletes every tuple of an object and its share links; repeatable."""

    object: ObjectRef


class ReadChangesRequest(Message):
    """Lists tuple changes, oldest first."""

    type: Relation | None = None
    limit: PageSize = 50
    cursor: Cursor | None = None


class TupleChange(Message):
    """A tuple that was written, or deleted if `written` is false."""

    tuple: RelationTuple
    written: bool
    at: Timestamp


class ReadChangesResponse(Message):
    """`cursor` resumes after the last change returned, now or later."""

    changes: list[TupleChange]
    cursor: str | None = None


class ListAccessChangesRequest(Message):
    """Lists access that may have been revoked after a feed position; without `after`, returns only the position."""

    after: Annotated[Int64, Field(ge=0)] | None = None


class AccessChange(Message):
    """Cached checks of this user on this object are invalid; an absent field means any."""

    user_id: str | None = None
    object: ObjectRef | None = None


class ListAccessChangesResponse(Message):
    """Changes in order, and the next `after`. Too many changes are merged into one without fields."""

    position: Int64
    changes: list[AccessChange]


class ShareRole(StrEnum):
    """What a share allows: VIEWER reads, EDITOR also writes."""

    VIEWER = "VIEWER"
    EDITOR = "EDITOR"


SHAREABLE_TYPES: Final = "conversation|file|run"
Shareable = Annotated[
    str,
    Field(
        pattern=rf"^({SHAREABLE_TYPES}):{Id}$",
        examples=["conversation:conv_01k9x2m4q7r8s5t6v0w1y2z3a4"],
    ),
]
ShareSubject = Annotated[
    str, Field(pattern=rf"^(user:{Id}|(organization|group):{Id}#member)$", examples=["user:grace"])
]
LinkId = Annotated[
    str, Field(pattern=r"^link_[0-9a-z]{26,32}$", examples=["link_01k9x2m4q7r8s5t6v0w1y2z3d7"])
]


class ShareRequest(Message):
    """Shares an object with a user, or with the members of an organization or group."""

    object: Shareable
    subject: ShareSubject
    role: ShareRole = ShareRole.VIEWER


class UnshareRequest(Message):
    """Removes every role shared with a subject; ownership is unaffected."""

    object: Shareable
    subject: ShareSubject


class SharedObjectRequest(Message):
    """Identifies a shareable object."""

    object: Shareable


class Share(Message):
    """A role granted to a subject directly, not by a link."""

    subject: str
    role: ShareRole


class ShareLink(Message):
    """A link that grants a role to any signed-in user who opens it; `token` is returned only on creation."""

    link_id: str
    object: str
    role: ShareRole
    created_at: Timestamp
    expires_at: Timestamp | None = None
    token: str | None = None


class ListSharesResponse(Message):
    """Direct shares and active links."""

    shares: list[Share]
    links: list[ShareLink]


class CreateShareLinkRequest(SharedObjectRequest):
    """Creates a share link; without `expiresAt` it does not expire."""

    role: ShareRole = ShareRole.VIEWER
    expires_at: Timestamp | None = None


class RevokeShareLinkRequest(SharedObjectRequest):
    """Revokes a link and every role it granted."""

    link_id: LinkId


class OpenShareLinkRequest(Message):
    """Grants the link's role to the caller."""

    token: Annotated[
        str, Field(pattern=r"^yl_[A-Za-z0-9]{20,80}$", examples=["yl_anExampleThatOpensNothing"])
    ]


class OpenShareLinkResponse(Message):
    """The shared object and the role granted."""

    object: str
    role: ShareRole


class ListSharedWithMeRequest(Message):
    """Lists objects of `type` that others shared with the caller."""

    type: Annotated[str, StringConstraints(pattern=f"^({SHAREABLE_TYPES})$")] = "conversation"


_ERRORS = (ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE)
_SHARE_ERRORS = (
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.NOT_FOUND,
    ErrorCode.UNAVAILABLE,
)
AUTHORIZATION_SERVICE: Final = RpcService(
    "yocaso.auth.v1.AuthorizationService", "Access checks, relationship tuples and sharing."
)
CHECK: Final = AUTHORIZATION_SERVICE.unary(
    "Check", CheckRequest, CheckResponse, "Check a relation", raises=_ERRORS, internal=True
)
BATCH_CHECK: Final = AUTHORIZATION_SERVICE.unary(
    "BatchCheck",
    BatchCheckRequest,
    BatchCheckResponse,
    "Check several relations",
    raises=_ERRORS,
    internal=True,
)
LIST_OBJECTS: Final = AUTHORIZATION_SERVICE.unary(
    "ListObjects",
    ListObjectsRequest,
    ListObjectsResponse,
    "List a subject's objects",
    raises=_ERRORS,
    internal=True,
)
LIST_USERS: Final = AUTHORIZATION_SERVICE.unary(
    "ListUsers",
    ListUsersRequest,
    ListUsersResponse,
    "List an object's users",
    raises=_ERRORS,
    internal=True,
)
EXPAND: Final = AUTHORIZATION_SERVICE.unary(
    "Expand", ExpandRequest, ExpandResponse, "Explain a relation", raises=_ERRORS, internal=True
)
WRITE_TUPLES: Final = AUTHORIZATION_SERVICE.unary(
    "WriteTuples", WriteTuplesRequest, Empty, "Change tuples", raises=_ERRORS, internal=True
)
FORGET_OBJECT: Final = AUTHORIZATION_SERVICE.unary(
    "ForgetObject",
    ForgetObjectRequest,
    Empty,
    "Delete every tuple of an object",
    raises=_ERRORS,
    internal=True,
)
READ_CHANGES: Final = AUTHORIZATION_SERVICE.unary(
    "ReadChanges",
    ReadChangesRequest,
    ReadChangesResponse,
    "List tuple changes",
    raises=_ERRORS,
    internal=True,
)
LIST_ACCESS_CHANGES: Final = AUTHORIZATION_SERVICE.unary(
    "ListAccessChanges",
    ListAccessChangesRequest,
    ListAccessChangesResponse,
    "List access revoked after a feed position",
    raises=_ERRORS,
    internal=True,
)
SHARE: Final = AUTHORIZATION_SERVICE.unary(
    "Share", ShareRequest, Share, "Share an object", raises=_SHARE_ERRORS, scope=SHARING_WRITE
)
UNSHARE: Final = AUTHORIZATION_SERVICE.unary(
    "Unshare", UnshareRequest, Empty, "Unshare an object", raises=_SHARE_ERRORS, scope=SHARING_WRITE
)
LIST_SHARES: Final = AUTHORIZATION_SERVICE.unary(
    "ListShares",
    SharedObjectRequest,
    ListSharesResponse,
    "List an object's shares and links",
    raises=_SHARE_ERRORS,
    scope=SHARING_READ,
)
CREATE_SHARE_LINK: Final = AUTHORIZATION_SERVICE.unary(
    "CreateShareLink",
    CreateShareLinkRequest,
    ShareLink,
    "Create a share link",
    raises=_SHARE_ERRORS,
    scope=SHARING_WRITE,
)
REVOKE_SHARE_LINK: Final = AUTHORIZATION_SERVICE.unary(
    "RevokeShareLink",
    RevokeShareLinkRequest,
    Empty,
    "Revoke a share link and the access it granted",
    raises=_SHARE_ERRORS,
    scope=SHARING_WRITE,
)
OPEN_SHARE_LINK: Final = AUTHORIZATION_SERVICE.unary(
    "OpenShareLink",
    OpenShareLinkRequest,
    OpenShareLinkResponse,
    "Open a share link",
    raises=_SHARE_ERRORS,
    scope=SHARING_WRITE,
)
LIST_SHARED_WITH_ME: Final = AUTHORIZATION_SERVICE.unary(
    "ListSharedWithMe",
    ListSharedWithMeRequest,
    ListObjectsResponse,
    "List objects shared with the caller",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAUTHENTICATED, ErrorCode.UNAVAILABLE),
    scope=SHARING_READ,
)
