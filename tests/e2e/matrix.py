"""The tenancy matrix: its rows, which name every operation of the OpenAPI document, and what each cell has to answer.

A cell is an operation, asked by a principal about a target. What it answers follows from who may call the operation
(the document says so) and from the relation to the named thing that the operation needs (the row says so).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Any, Final

from services.contracts.auth.tokens import SubjectTokenType

DOCUMENT: Final = Path(__file__).parents[2] / "services/contracts/openapi/yocaso.json"
OK: Final = "OK"
VERBS: Final = ("get", "post")


class Standing(StrEnum):
    """How far a principal gets before anything is looked up."""

    IN = "IN"
    LOW = "LOW"
    OUT = "OUT"


class Principal(StrEnum):
    """Who asks. Whoever is refused before a look at the target asks in the owner's name."""

    OWNER = "owner"
    COLLEAGUE = "member of the same organization"
    STRANGER = "member of another organization"
    API_KEY = "API key of the owner"
    LOW_KEY = "API key with low scope"
    LOW_TOKEN = "token with low scope"
    ANONYMOUS = "anonymous"
    SIGNED_OUT = "token of a session that was signed out"
    REVOKED_KEY = "revoked API key"
    REVOKED_KEY_TOKEN = "token of a revoked API key"

    @property
    def standing(self) -> Standing:
        """How far it gets."""
        if self in (Principal.LOW_KEY, Principal.LOW_TOKEN):
            return Standing.LOW
        return Standing.IN if self in (*PEOPLE, Principal.API_KEY) else Standing.OUT


PEOPLE: Final = (Principal.OWNER, Principal.COLLEAGUE, Principal.STRANGER)


class Target(StrEnum):
    """Whose thing is named. VIEWED and EDITED are somebody else's, shared with the principal by that role."""

    NONE = "none"
    OWN = "own"
    FOREIGN = "foreign"
    MISSING = "missing"
    VIEWED = "viewed"
    EDITED = "edited"


PLAIN: Final = (Target.OWN, Target.FOREIGN, Target.MISSING)
Question = tuple[str, str, Principal, Target]
"""An operation, the field that names the thing, who asks, and whose thing it is."""


class Kind(StrEnum):
    """What is named."""

    NOTHING = "nothing"
    CONVERSATION = "conversation"
    TURN = "turn"
    LINK = "link"
    API_KEY = "api key"
    ORGANIZATION_KEY = "organization's api key"
    ORGANIZATION = "organization"
    LINK_TOKEN = "link token"
    KEY_SECRET = "key secret"
    REFRESH_TOKEN = "refresh token"
    ACCESS_TOKEN = "access token"
    ID_TOKEN = "id token"
    DELETION = "deletion"


BEARER: Final = frozenset(
    {
        Kind.LINK_TOKEN,
        Kind.KEY_SECRET,
        Kind.REFRESH_TOKEN,
        Kind.ACCESS_TOKEN,
        Kind.ID_TOKEN,
        Kind.DELETION,
    }
)
"""Whoever knows such a thing may use it, by design: it is a secret, or names nobody."""


class Needs(StrEnum):
    """The role without which the named thing is not for the caller."""

    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Operation:
    """A path and verb of the document. `scope` is None for anybody; `ids` are the fields that name a thing.

    `by_key`: an API key may call it.
    """

    id: str
    verb: str
    path: str
    scope: str | None
    by_key: bool
    ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Row:
    """How an operation is asked about a kind of thing, in `names`; `beside` names what is the caller's own.

    `answer` is that to a caller who may; `unknown` that to whoever shows a secret that nobody gave out. `spoils`: the
    call uses the thing up or renames it, or uses up its caller.
    """

    operation: str
    kind: Kind = Kind.NOTHING
    names: tuple[str, ...] = ()
    needs: Needs = Needs.OWNER
    beside: tuple[str, ...] = ()
    rest: dict[str, Any] = field(default_factory=dict[str, Any])
    answer: str = OK
    unknown: str = "NOT_FOUND"
    spoils: bool = False

    @property
    def name(self) -> str:
        """How a report calls it."""
        return f"{self.operation}-{self.kind}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One question of the matrix, and the code of its answer."""

    principal: Principal
    target: Target
    expected: str


def operations() -> dict[str, Operation]:
    """Every operation of the document, by its id."""
    document = json.loads(DOCUMENT.read_text())
    found = [
        _operation(path, verb, said, document)
        for path, verbs in document["paths"].items()
        for verb, said in verbs.items()
        if verb in VERBS
    ]
    return {each.id: each for each in found}


def _operation(path: str, verb: str, said: dict[str, Any], document: dict[str, Any]) -> Operation:
    security: list[dict[str, list[str]]] = said["security"]
    scopes = {scope for way in security for scoped in way.values() for scope in scoped}
    assert len(scopes) == bool(security), f"{said['operationId']} needs one scope or none: {scopes}"
    fields = {each["name"] for each in said.get("parameters", ()) if each["in"] == "query"}
    if "requestBody" in said:
        reference = said["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        fields |= document["components"]["schemas"][reference.rsplit("/", 1)[1]][
            "properties"
        ].keys()
    ids = frozenset(name for name in fields if names_a_thing(name))
    by_key = not security or any("apiKey" in way for way in security)
    return Operation(said["operationId"], verb, path, next(iter(scopes), None), by_key, ids)


def names_a_thing(name: str) -> bool:
    """Whether a field of a request names something that is somebody's."""
    return name == "object" or name.endswith(("Id", "Token", "token"))


def cells(row: Row, operation: Operation) -> Iterator[Cell]:
    """Every principal with every target that the row has for it."""
    for principal in Principal:
        refused = refusal(operation, principal)
        for target in targets(row, principal):
            yield Cell(principal, target, refused or expected(row, target))


def targets(row: Row, principal: Principal) -> tuple[Target, ...]:
    """What a principal asks about."""
    if row.kind is Kind.NOTHING:
        return (Target.NONE,)
    shared = row.kind is Kind.CONVERSATION and principal in (
        Principal.COLLEAGUE,
        Principal.STRANGER,
    )
    return (*PLAIN, Target.VIEWED, Target.EDITED) if shared else PLAIN


def refusal(operation: Operation, principal: Principal) -> str | None:
    """The code for whoever does not get as far as the target."""
    if operation.scope is not None and principal.standing is Standing.OUT:
        return "UNAUTHENTICATED"
    may_not = principal is Principal.API_KEY and not operation.by_key
    if operation.scope is not None and (may_not or principal.standing is Standing.LOW):
        return "PERMISSION_DENIED"
    return None


def expected(row: Row, target: Target) -> str:
    """The code for whoever does."""
    if row.kind in BEARER:
        return row.unknown if target is Target.MISSING else row.answer
    denied = {
        Target.FOREIGN: "NOT_FOUND",
        Target.MISSING: "NOT_FOUND",
        Target.VIEWED: OK if row.needs is Needs.VIEWER else "PERMISSION_DENIED",
        Target.EDITED: "PERMISSION_DENIED" if row.needs is Needs.OWNER else OK,
    }.get(target, OK)
    return row.answer if denied == OK else denied


def asked_for(found: dict[str, Operation]) -> set[Question]:
    """What the document asks for: every operation and principal, about each of its ids in every plain way."""
    return {
        (each.id, name, principal, target)
        for each in found.values()
        for name, target in (product(each.ids, PLAIN) if each.ids else [("", Target.NONE)])
        for principal in Principal
    }


def asked(found: dict[str, Operation]) -> set[Question]:
    """What the rows ask of that: neither shared things, nor how it is to leave an optional id away."""
    return {
        (row.operation, name, cell.principal, cell.target)
        for row in ROWS
        for cell in cells(row, found[row.operation])
        for name in row.names or ("",)
        if cell.target in PLAIN or not found[row.operation].ids
    }


def _conversation(method: str, needs: Needs, *, spoils: bool = False, **rest: Any) -> Row:
    return Row(
        f"ConversationService.{method}",
        Kind.CONVERSATION,
        ("conversationId",),
        needs,
        rest=rest,
        spoils=spoils,
    )


def _turn(method: str, needs: Needs) -> tuple[Row, Row]:
    operation = f"ConversationService.{method}"
    return (
        Row(operation, Kind.CONVERSATION, ("conversationId", "turnId"), needs),
        Row(operation, Kind.TURN, ("turnId",), needs, beside=("conversationId",)),
    )


def _key(method: str, *, spoils: bool = False, **rest: Any) -> tuple[Row, Row]:
    operation = f"ApiKeyService.{method}"
    kinds = (Kind.API_KEY, Kind.ORGANIZATION_KEY)
    mine, theirs = (Row(operation, kind, ("keyId",), rest=rest, spoils=spoils) for kind in kinds)
    return mine, theirs


def _organization(operation: str, **rest: Any) -> tuple[Row, Row]:
    return (
        Row(operation, rest=rest),
        Row(operation, Kind.ORGANIZATION, ("organizationId",), rest=rest),
    )


def _sharing(method: str, **rest: Any) -> Row:
    return Row(f"AuthorizationService.{method}", Kind.CONVERSATION, ("object",), rest=rest)


def _bearer(operation: str, kind: Kind, name: str, **fields: Any) -> Row:
    return Row(operation, kind, (name,), **fields)


_SAID: Final[dict[str, Any]] = {"text": "let me in"}
_KEY: Final = {"name": "of the matrix", "scopes": ["conversations:read"]}
_GUEST: Final = {"subject": "user:guest-of-the-matrix"}
_NO_FIREBASE: Final = {"answer": "FAILED_PRECONDITION", "unknown": "FAILED_PRECONDITION"}

ROWS: Final[tuple[Row, ...]] = (
    Row("ConversationService.CreateConversation", rest={"title": "of the matrix"}),
    Row("ConversationService.ListConversations"),
    _conversation("GetConversation", Needs.VIEWER),
    _conversation("UpdateConversation", Needs.EDITOR, spoils=True, title="of the matrix"),
    _conversation("DeleteConversation", Needs.OWNER, spoils=True),
    _conversation("ListMessages", Needs.VIEWER),
    _conversation("AppendMessage", Needs.EDITOR, **_SAID),
    _conversation("SendMessage", Needs.EDITOR, **_SAID),
    _conversation("StreamMessage", Needs.EDITOR, **_SAID),
    _conversation("StreamMessage.Get", Needs.EDITOR, **_SAID),
    *_turn("GetTurn", Needs.VIEWER),
    *_turn("CancelTurn", Needs.EDITOR),
    *_turn("ListEvents", Needs.VIEWER),
    *_turn("StreamEvents", Needs.VIEWER),
    *_turn("StreamEvents.Get", Needs.VIEWER),
    *_organization("ApiKeyService.CreateApiKey", **_KEY),
    *_organization("ApiKeyService.ListApiKeys"),
    *_key("GetApiKey"),
    *_key("UpdateApiKey", spoils=True, name="of the matrix"),
    *_key("RotateApiKey"),
    *_key("RevokeApiKey", spoils=True),
    _bearer(
        "TokenService.ExchangeToken",
        Kind.KEY_SECRET,
        "subjectToken",
        rest={"subjectTokenType": SubjectTokenType.API_KEY},
        unknown="UNAUTHENTICATED",
    ),
    _bearer(
        "TokenService.RefreshToken",
        Kind.REFRESH_TOKEN,
        "refreshToken",
        unknown="UNAUTHENTICATED",
        spoils=True,
    ),
    _bearer("TokenService.RevokeToken", Kind.ACCESS_TOKEN, "token", unknown=OK, spoils=True),
    _bearer("TokenService.CreateSessionCookie", Kind.ID_TOKEN, "idToken", **_NO_FIREBASE),
    Row("TokenService.CreateCustomToken", answer="FAILED_PRECONDITION"),
    _sharing("Share", **_GUEST),
    _sharing("Unshare", **_GUEST),
    _sharing("ListShares"),
    _sharing("CreateShareLink"),
    Row(
        "AuthorizationService.RevokeShareLink",
        Kind.CONVERSATION,
        ("object", "linkId"),
        spoils=True,
    ),
    Row(
        "AuthorizationService.RevokeShareLink",
        Kind.LINK,
        ("linkId",),
        beside=("object",),
        spoils=True,
    ),
    _bearer("AuthorizationService.OpenShareLink", Kind.LINK_TOKEN, "token"),
    Row("AuthorizationService.ListSharedWithMe"),
    *_organization("AuditService.ListAuditEvents"),
    Row("AccountService.DeleteAccount", spoils=True),
    _bearer("AccountService.GetAccountDeletion", Kind.DELETION, "deletionId"),
)
