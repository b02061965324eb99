"""What an API key is traded for."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from services.contracts.auth.tokens import SubjectTokenType
from tests.component.auth.conftest import AuthApp, Person, by_app, counted_together
from tests.component.auth.test_tokens import claims_of
from tests.requirements import requirement

API_KEY = "urn:yocaso:params:oauth:token-type:api-key"
READ, WRITE = "conversations:read", "conversations:write"


async def exchange(app: AuthApp, secret: str, **body: Any) -> tuple[int, Any]:
    wanted = {"subjectToken": secret, "subjectTokenType": API_KEY, **body}
    return await by_app(app, "edge", "TokenService", "ExchangeToken", **wanted)


def a_user() -> str:
    return f"user_{secrets.token_hex(8)}"


@requirement("access:tokens:exchange")
async def test_a_key_is_traded_for_a_short_token_that_names_it(replicas: list[AuthApp]) -> None:
    ada = Person(replicas[0], a_user())
    made = await ada.key()
    status, token = await exchange(replicas[1], made["secret"])
    assert status == 200
    assert (token["tokenType"], token["expiresIn"], "refreshToken" in token) == (
        "Bearer",
        600,
        False,
    )
    claims = claims_of(token["accessToken"], await replicas[0].jwks())
    assert (claims["sub"], claims["key_id"]) == (ada.user_id, made["apiKey"]["keyId"])
    assert (claims["scope"], token["scope"]) == (f"{READ} {WRITE}", f"{READ} {WRITE}")
    assert claims["exp"] - claims["iat"] == 600
    assert "sid" not in claims


@requirement("access:tokens:exchange")
async def test_an_exchange_narrows_scopes_and_never_widens_them(replicas: list[AuthApp]) -> None:
    secret = (await Person(replicas[0], a_user()).key())["secret"]
    status, token = await exchange(replicas[0], secret, scope=READ)
    assert (status, token["scope"]) == (200, READ)
    for scope in (f"{READ} audit:read", "", "keys:write"):
        status, refused = await exchange(replicas[0], secret, scope=scope)
        assert status == 400
        assert refused["error"]["details"]["fieldViolations"][0]["field"] == "scope"


@requirement("access:tokens:exchange")
async def test_a_token_does_not_outlive_its_key_or_the_grace_of_a_secret(
    replicas: list[AuthApp],
) -> None:
    ada = Person(replicas[0], a_user())
    soon = (datetime.now(UTC) + timedelta(seconds=120)).isoformat()
    made = await ada.key(expiresAt=soon)
    status, token = await exchange(replicas[0], made["secret"])
    assert (status, 100 < token["expiresIn"] <= 120) == (200, True)
    body = {"keyId": made["apiKey"]["keyId"], "graceSeconds": 30}
    status, _ = await ada.call("ApiKeyService", "RotateApiKey", **body)
    assert status == 200
    status, token = await exchange(replicas[0], made["secret"])
    assert (status, 10 < token["expiresIn"] <= 30) == (200, True)


@requirement("access:tokens:exchange")
async def test_a_key_that_may_not_is_not_traded(replicas: list[AuthApp]) -> None:
    app = replicas[0]
    ada = Person(app, a_user())
    gone = await ada.key()
    await ada.call("ApiKeyService", "RevokeApiKey", keyId=gone["apiKey"]["keyId"])

    async def twice() -> list[tuple[int, Any]]:
        limited = await ada.key(rateLimit={"limit": 1, "windowSeconds": 3600})
        return [await exchange(app, limited["secret"]) for _ in range(2)]

    (first, _), (second, late) = await counted_together([app], twice)
    assert (first, second, late["error"]["code"]) == (200, 429, "RATE_LIMITED")
    poor = await ada.key(budget={"amount": 0.5, "period": "TOTAL"})
    charge = {"keyId": poor["apiKey"]["keyId"], "reference": "turn", "amount": 0.5}
    await by_app(app, "llm", "ApiKeyService", "ChargeApiKey", **charge)
    for secret, expected in (
        (gone["secret"], (401, "UNAUTHENTICATED")),
        ("yk_live_nonsense", (401, "UNAUTHENTICATED")),
        (poor["secret"], (402, "BUDGET_EXCEEDED")),
    ):
        status, refused = await exchange(app, secret)
        assert (status, refused["error"]["code"]) == expected


async def test_without_firebase_its_tokens_are_not_taken(replicas: list[AuthApp]) -> None:
    kind = SubjectTokenType.FIREBASE_ID_TOKEN
    status, refused = await exchange(replicas[0], "a.b.c", subjectTokenType=kind)
    assert (status, refused["error"]["code"]) == (400, "FAILED_PRECONDITION")
