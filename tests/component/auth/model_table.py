"""What the authorization model has to say: tuples, and what follows and does not follow from them."""

from collections.abc import Iterator

LINKED = ("conversation", "file", "run")
SHARED = (*LINKED, "memory_scope", "integration_account", "notification_topic")
EVERYBODY = (
    "olga eddie vera gwen glen gary omar otto ona lena lars sid".split()  # sid has nothing at all
)

Fact = tuple[str, str, str]


def tuples() -> Iterator[Fact]:
    """Olga owns one of each; everybody else but Sid has a role on it in one way."""
    yield from (
        ("user:gwen", "member", "group:editors"),
        ("user:gary", "admin", "group:editors"),
        ("user:glen", "member", "group:viewers"),
        ("user:omar", "member", "organization:editors"),
        ("user:ona", "admin", "organization:editors"),
        ("user:otto", "member", "organization:viewers"),
        ("user:lena", "holder", "share_link:editors"),
        ("user:lars", "holder", "share_link:viewers"),
        ("user:olga", "owner", "api_key:hers"),
        ("organization:editors", "owner", "api_key:theirs"),
    )
    for kind in SHARED:
        one = f"{kind}:one"
        yield from (
            ("user:olga", "owner", one),
            ("user:eddie", "editor", one),
            ("user:vera", "viewer", one),
        )
        for role in ("editor", "viewer"):
            yield f"group:{role}s#member", role, one
            yield f"organization:{role}s#member", role, one
            if kind in LINKED:
                yield f"share_link:{role}s#holder", role, one


def who_may() -> Iterator[tuple[str, str, set[str]]]:
    """For each relation to each object: everybody who has it, and so everybody who has not."""
    yield "group:editors", "admin", {"gary"}
    yield "group:editors", "member", {"gary", "gwen"}
    yield "group:viewers", "member", {"glen"}
    yield "organization:editors", "admin", {"ona"}
    yield "organization:editors", "member", {"ona", "omar"}
    yield "organization:viewers", "admin", set()
    yield "share_link:editors", "holder", {"lena"}
    yield "api_key:hers", "owner", {"olga"}
    yield "api_key:hers", "manager", {"olga"}
    yield "api_key:hers", "viewer", {"olga"}
    yield "api_key:theirs", "owner", set()
    yield "api_key:theirs", "manager", {"ona"}
    yield "api_key:theirs", "viewer", {"ona"}
    for kind in SHARED:
        by_link = kind in LINKED
        editors = {"olga", "eddie", "gwen", "gary", "omar", "ona", *(["lena"] if by_link else [])}
        viewers = {"vera", "glen", "otto", *(["lars"] if by_link else [])}
        yield f"{kind}:one", "owner", {"olga"}
        yield f"{kind}:one", "editor", editors
        yield f"{kind}:one", "viewer", editors | viewers
        yield f"{kind}:other", "viewer", set()


def also() -> Iterator[tuple[Fact, bool]]:
    """What follows for subjects that are not people."""
    yield ("organization:editors", "owner", "api_key:theirs"), True
    yield ("organization:viewers", "owner", "api_key:theirs"), False
    yield ("organization:editors#member", "viewer", "conversation:one"), True
    yield ("organization:viewers#member", "editor", "conversation:one"), False


def assertions() -> list[tuple[Fact, bool]]:
    """Every question with its answer."""
    people = [
        ((f"user:{name}", relation, target), name in allowed)
        for target, relation, allowed in who_may()
        for name in EVERYBODY
    ]
    return [*people, *also()]
