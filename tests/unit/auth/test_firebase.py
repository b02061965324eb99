"""Who comes in by a Firebase token: each wrong way is refused, each right one names its user."""

import json
import string
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.adapters.firebase.certificates import Certificates
from services.auth.adapters.firebase.signatures import EmulatedSignatures, GoogleSignatures
from services.auth.domain.firebase import FirebaseProject, FirebaseTokenKind, FirebaseUser
from services.kit.errors import ErrorCode, RpcError
from services.kit.outbound.client import OutboundTimeouts, open_outbound
from tests.requirements import requirement
from tests.support.firebase import PROJECT, FirebaseServer, Signer, forged
from tests.support.firebase.signing import b64, signing_input

pytestmark = pytest.mark.loopback

PORT: Final = 21_920
SKEW: Final = 10
ID_TOKEN: Final = FirebaseTokenKind.ID_TOKEN
COOKIE: Final = FirebaseTokenKind.SESSION_COOKIE
SECURE_TOKEN: Final = f"https://securetoken.google.com/{PROJECT}"
MALLORY: Final = Signer()
PROJECT_RULES: Final = FirebaseProject(PROJECT, timedelta(seconds=SKEW))

Forgery = Callable[[FirebaseServer], str]


@pytest.fixture(scope="module")
async def google() -> AsyncIterator[FirebaseServer]:
    async with FirebaseServer(PORT) as server:
        yield server


def at_one_moment() -> float:
    """Seconds that stand still: however long these tests take, a set of keys has just been fetched."""
    return 1000.0


@pytest.fixture(scope="module")
async def signatures(google: FirebaseServer) -> AsyncIterator[GoogleSignatures]:
    async with open_outbound(OutboundTimeouts(), trusted=[google.url]) as client:
        yield GoogleSignatures(
            {
                ID_TOKEN: Certificates(client, f"{google.url}/certs", at_one_moment),
                COOKIE: Certificates(client, f"{google.url}/cookie-certs", at_one_moment),
            }
        )


async def sign_in(
    signatures: GoogleSignatures,
    token: str,
    kind: FirebaseTokenKind = ID_TOKEN,
    at: datetime | None = None,
) -> FirebaseUser:
    return PROJECT_RULES.user_of(
        kind, await signatures.claims(kind, token), at or datetime.now(UTC)
    )


async def refusal(
    signatures: GoogleSignatures,
    token: str,
    kind: FirebaseTokenKind = ID_TOKEN,
    at: datetime | None = None,
) -> str:
    with pytest.raises(RpcError) as refused:
        await sign_in(signatures, token, kind, at)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED
    return refused.value.message


def by_key(**header: Any) -> Forgery:
    """Signed by a key of somebody else, which the header recommends."""
    return lambda google: MALLORY.sign(google.claims(), **header)


def saying(**claims: Any) -> Forgery:
    """Rightly signed, and wrong in what it says."""
    return lambda google: google.id_token(**claims)


def text(head: bytes, body: bytes = b"{}", signature: bytes = b"x") -> Forgery:
    return lambda _: ".".join(b64(part) for part in (head, body, signature))


def signed_body(body: Any) -> Forgery:
    return lambda google: google.signers[-1].sign(body)


def as_cookie_of_key(google: FirebaseServer) -> str:
    return google.signers[-1].sign(
        google.claims(iss=f"https://session.firebase.google.com/{PROJECT}")
    )


JWK = MALLORY.jwk()
FORGERIES: Final[dict[str, Forgery]] = {
    "alg none": lambda g: forged(g.claims(), "none", g.signers[-1].kid),
    "alg none in capitals": lambda g: forged(g.claims(), "NONE", g.signers[-1].kid),
    "alg none with a signature": lambda g: g.signers[-1].sign(g.claims(), alg="none"),
    "no alg": lambda g: g.signers[-1].sign(g.claims(), alg=None),
    "alg of no kind": lambda g: g.signers[-1].sign(g.claims(), alg=["RS256"]),
    "HS256 by the public key": lambda g: forged(
        g.claims(), "HS256", g.signers[-1].kid, g.signers[-1].public_pem()
    ),
    "HS256 by the certificate": lambda g: forged(
        g.claims(), "HS256", g.signers[-1].kid, g.signers[-1].certificate.encode()
    ),
    "RS512": lambda g: g.signers[-1].sign(g.claims(), alg="RS512"),
    "kid of nobody": by_key(),
    "kid of Google, key of another": lambda g: MALLORY.sign(g.claims(), kid=g.signers[-1].kid),
    "kid a path": by_key(kid="../../../../dev/null"),
    "kid a URL": by_key(kid="https://mallory.example/key.pem"),
    "kid a query": by_key(kid="' OR 1=1 --"),
    "kid empty": by_key(kid=""),
    "kid absent": by_key(kid=None),
    "kid a number": by_key(kid=1),
    "kid a list": lambda g: MALLORY.sign(g.claims(), kid=[g.signers[-1].kid]),
    "jku": by_key(jku="https://mallory.example/jwks.json"),
    "jku and kid of Google": lambda g: MALLORY.sign(
        g.claims(), kid=g.signers[-1].kid, jku="https://mallory.example/jwks.json"
    ),
    "x5u": lambda g: MALLORY.sign(
        g.claims(), kid=g.signers[-1].kid, x5u="https://mallory.example/cert.pem"
    ),
    "x5c": lambda g: MALLORY.sign(
        g.claims(), kid=g.signers[-1].kid, x5c=["".join(MALLORY.certificate.splitlines()[1:-1])]
    ),
    "embedded jwk": lambda g: MALLORY.sign(g.claims(), kid=g.signers[-1].kid, jwk=JWK),
    "crit of an unknown kind": lambda g: g.signers[-1].sign(
        g.claims(), crit=["mallory"], mallory=True
    ),
    "aud of another project": saying(aud="other-project"),
    "aud a list": saying(aud=[PROJECT]),
    "aud absent": saying(aud=None),
    "iss of another project": saying(iss="https://securetoken.google.com/other-project"),
    "iss of another kind": as_cookie_of_key,
    "iss with a slash": saying(iss=f"{SECURE_TOKEN}/"),
    "iss absent": saying(iss=None),
    "another project altogether": saying(
        iss="https://securetoken.google.com/other-project", aud="other-project"
    ),
    "a tenant's user": saying(firebase={"tenant": "tenant-1"}),
    "sub empty": saying(sub=""),
    "sub absent": saying(sub=None),
    "sub a number": saying(sub=7),
    "sub too long": saying(sub="a" * 129),
    "exp absent": saying(exp=None),
    "exp a text": saying(exp="9999999999"),
    "exp without end": saying(exp=float("inf")),
    "exp true": saying(exp=True),
    "exp beyond dates": saying(exp=10**18),
    "auth_time absent": saying(auth_time=None),
    "auth_time beyond dates": saying(auth_time=-1),
    "iat absent": saying(iat=None),
    "nothing": lambda _: "",
    "no token": lambda _: "not a token",
    "two parts": lambda g: g.id_token().rpartition(".")[0],
    "no signature": lambda g: g.id_token().rpartition(".")[0] + ".",
    "four parts": lambda g: g.id_token() + ".x",
    "a space": lambda g: g.id_token() + " ",
    "padding": lambda g: g.id_token() + "==",
    "another alphabet": lambda _: "ä.ö.ü",
    "header no JSON": text(b"{"),
    "header a list": text(b"[]"),
    "header too deep": text(b"[" * 4000),
    "header no text": text(b"\xff\xfe"),
    "body a list": signed_body([1]),
    "body a text": signed_body("alice"),
    "100 KB": saying(padding="x" * 100_000),
}


@requirement("access:firebase:forgeries")
@pytest.mark.parametrize("name", FORGERIES)
async def test_what_firebase_did_not_sign_for_this_project_is_refused(
    google: FirebaseServer, signatures: GoogleSignatures, name: str
) -> None:
    token = FORGERIES[name](google)
    message = await refusal(signatures, token)
    assert message.startswith("The Firebase ID token ")
    assert not any(secret in message for secret in (PROJECT, "alice", "127.0.0.1"))
    await refusal(signatures, token, COOKIE)
    assert google.calls["certificates"] <= 1


async def test_a_cookie_is_no_id_token_and_an_id_token_no_cookie(
    google: FirebaseServer, signatures: GoogleSignatures
) -> None:
    claims = google.claims(iss=f"https://session.firebase.google.com/{PROJECT}")
    cookie = google.cookie_signer.sign(claims)
    assert (await sign_in(signatures, cookie, COOKIE)).uid == "alice"
    await refusal(signatures, cookie)
    await refusal(signatures, google.id_token(), COOKIE)


async def test_a_right_token_names_its_user_for_ever(
    google: FirebaseServer, signatures: GoogleSignatures
) -> None:
    google.add("bob", email="bob@example.com")
    first = await sign_in(signatures, google.id_token("bob"))
    again = await sign_in(signatures, google.id_token("bob"))
    other = await sign_in(signatures, google.id_token("bob2"))
    assert first.user_id == again.user_id == "user_4d73b5a85683f7d86bf22a1584d34368"
    assert first.user_id != other.user_id
    assert (first.uid, first.email) == ("bob", "bob@example.com")


async def test_an_address_that_firebase_has_not_verified_is_not_passed_on(
    google: FirebaseServer, signatures: GoogleSignatures
) -> None:
    for claims in ({"email_verified": False}, {"email_verified": None}, {"email": None}):
        assert (await sign_in(signatures, google.id_token("bob", **claims))).email is None


@pytest.mark.parametrize(
    ("claim", "last_good", "first_bad"),
    [
        ("exp", -SKEW + 1, -SKEW),
        ("iat", SKEW, SKEW + 1),
        ("nbf", SKEW, SKEW + 1),
        ("auth_time", SKEW, SKEW + 1),
    ],
)
async def test_clocks_may_differ_by_the_skew_and_no_more(
    google: FirebaseServer,
    signatures: GoogleSignatures,
    claim: str,
    last_good: int,
    first_bad: int,
) -> None:
    now = int(time.time())
    at = datetime.fromtimestamp(now, UTC)
    good, bad = (
        google.signers[-1].sign({**google.claims(), claim: now + off})
        for off in (last_good, first_bad)
    )
    assert (await sign_in(signatures, good, at=at)).uid == "alice"
    assert await refusal(signatures, bad, at=at) in (
        "The Firebase ID token has expired.",
        "The Firebase ID token is not valid yet.",
    )


@requirement("access:firebase:forgeries")
@given(data=st.data())
async def test_no_character_of_a_token_can_be_another(
    google: FirebaseServer, signatures: GoogleSignatures, data: st.DataObject
) -> None:
    token = google.id_token()
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_.=+/ \0ä"))
    changed = token[:at] + other + token[at + 1 :]
    if changed != token:
        await refusal(signatures, changed)


@pytest.mark.timeout(20)
async def test_no_bit_of_a_signature_is_idle(
    google: FirebaseServer, signatures: GoogleSignatures
) -> None:
    token = google.id_token()
    alphabet = string.ascii_letters + string.digits + "-_"
    accepted = 0
    for last in alphabet:
        if last != token[-1]:
            await refusal(signatures, token[:-1] + last)
            accepted += 1
    assert accepted == len(alphabet) - 1
    for at in range(token.rindex(".") + 1, len(token)):
        await refusal(signatures, token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :])


async def test_the_emulator_takes_unsigned_tokens_of_the_project_and_nothing_else(
    google: FirebaseServer,
) -> None:
    emulated = EmulatedSignatures()
    unsigned = signing_input({"alg": "none", "typ": "JWT"}, google.claims()) + "."
    claims = await emulated.claims(ID_TOKEN, unsigned)
    assert PROJECT_RULES.user_of(ID_TOKEN, claims, datetime.now(UTC)).uid == "alice"
    body = b64(b"[" * 4000)
    for token in (
        google.id_token(),
        "nothing",
        signing_input({"alg": "none"}, [1]) + ".",
        f"{b64(json.dumps({'alg': 'none'}).encode())}.{body}.",
    ):
        with pytest.raises(RpcError) as refused:
            await emulated.claims(ID_TOKEN, token)
        assert refused.value.code is ErrorCode.UNAUTHENTICATED
