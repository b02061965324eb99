"""Webhook signatures, against the package's own verifier and the test vector of its implementations."""

import base64
import string
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from standardwebhooks import Webhook

from services.kit.errors import ErrorCode, RpcError
from services.kit.outbound.signatures import WebhookSigner
from tests.requirements import requirement
from tests.support.readme import example_of

README = Path(__file__).parents[3] / "services" / "kit" / "README.md"
OLD = SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
NEW = SecretStr("whsec_" + base64.b64encode(bytes(range(32))).decode())
OTHER = SecretStr("whsec_" + base64.b64encode(bytes(range(1, 33))).decode())
REFUSAL = (ErrorCode.SIGNATURE_INVALID, "The webhook signature is not valid.")
SIGNED_AT = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'
IDS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=256)
TEXT = st.text(max_size=200)


def signer(*secrets: SecretStr, after: timedelta = timedelta()) -> WebhookSigner:
    return WebhookSigner(*secrets, clock=lambda: SIGNED_AT + after)


def refused(verifier: WebhookSigner, headers: Mapping[str, str], body: bytes = BODY) -> bool:
    """Whether a message is refused; every refusal is the same."""
    try:
        verifier.verify(headers, body)
    except RpcError as error:
        return (error.code, error.message) == REFUSAL
    return False


@requirement("kit:webhook-signatures")
def test_the_signature_is_that_of_the_published_test_vector() -> None:
    assert signer(OLD).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", BODY) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@requirement("kit:webhook-signatures")
@given(message_id=IDS, body=TEXT)
def test_the_packages_verifier_accepts_what_is_signed_and_the_reverse(
    message_id: str, body: str
) -> None:
    mine, theirs = WebhookSigner(OLD, NEW), Webhook(NEW.get_secret_value())
    theirs.verify(body, mine.sign(message_id, body.encode()), json_parse=False)
    now = datetime.now(UTC)
    headers = {
        "Webhook-Id": message_id,
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": theirs.sign(message_id, now, body),
    }
    assert mine.verify(headers, body.encode()) == message_id


@requirement("kit:webhook-signatures:rotation")
def test_either_secret_is_enough_during_a_rotation_and_the_old_one_not_after_it() -> None:
    old, both, new = signer(OLD), signer(OLD, NEW), signer(NEW)
    for sender, receiver in ((old, both), (new, both), (both, old), (both, new), (both, both)):
        assert receiver.verify(sender.sign("msg_1", BODY), BODY) == "msg_1"
    assert refused(new, old.sign("msg_1", BODY))
    assert refused(signer(OTHER), both.sign("msg_1", BODY))


@requirement("kit:webhook-signatures")
@pytest.mark.parametrize(
    ("after", "accepted"),
    [
        (timedelta(minutes=5), True),
        (timedelta(minutes=-5), True),
        (timedelta(minutes=5, seconds=1), False),
        (timedelta(minutes=-5, seconds=-1), False),
        (timedelta(days=365), False),
    ],
)
def test_a_message_is_valid_for_five_minutes(after: timedelta, accepted: bool) -> None:
    headers = signer(OLD).sign("msg_1", BODY)
    assert refused(signer(OLD, after=after), headers) is not accepted


@requirement("kit:webhook-signatures")
@given(body=st.binary(max_size=200), changed=st.binary(max_size=200))
def test_any_other_bytes_are_refused(body: bytes, changed: bytes) -> None:
    headers = signer(OLD).sign("msg_1", body)
    assert signer(OLD).verify(headers, body) == "msg_1"
    assert refused(signer(OLD), headers, changed) is (changed != body)


@requirement("kit:webhook-signatures")
@given(
    name=st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]),
    value=st.one_of(
        TEXT,
        st.text("v1,= ABCab09+/.", max_size=80),
        st.sampled_from(
            [
                "",
                "1614265331",
                "1614265330.0",
                "-1614265330",
                "9" * 400,
                "１６１４２６５３３０",
                "v1",
            ]
        ),
        st.binary(max_size=48).map(lambda raw: "v1," + base64.b64encode(raw).decode()),
    ),
)
def test_no_changed_header_is_accepted_nor_raises_another_error(name: str, value: str) -> None:
    headers = signer(OLD).sign("msg_1", BODY)
    assert refused(signer(OLD), {**headers, name: value}) is (value != headers[name])


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(missing: str) -> None:
    headers = signer(OLD).sign("msg_1", BODY)
    assert refused(signer(OLD), {name: value for name, value in headers.items() if name != missing})


def test_other_versions_and_malformed_signatures_are_passed_over() -> None:
    headers = signer(OLD).sign("msg_1", BODY)
    right = headers["webhook-signature"]
    accepted = [
        f"v1a,{right[3:]} {right}",
        f"v1,%%% v1 , {right}",
        f"{right} v2,anything",
        "v1,AAAA " * 15 + right,
    ]
    for value in accepted:
        assert signer(OLD).verify({**headers, "webhook-signature": value}, BODY) == "msg_1"
    too_many = "v1,AAAA " * 16 + right
    wrong_version = f"v1a,{right[3:]}"
    for value in (too_many, wrong_version, right[3:], f"V1,{right[3:]}"):
        assert refused(signer(OLD), {**headers, "webhook-signature": value})


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "ü", "a" * 257, "a\r\nx: y"])
def test_an_id_that_could_be_read_otherwise_is_refused(message_id: str) -> None:
    with pytest.raises(RpcError) as invalid:
        signer(OLD).sign(message_id, BODY)
    assert invalid.value.violations[0].field == "id"


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_not base64!",
        "whsec_ü",
        base64.b64encode(bytes(23)).decode(),
        base64.b64encode(bytes(65)).decode(),
    ],
)
def test_a_weak_or_malformed_secret_is_refused_without_naming_it(secret: str) -> None:
    with pytest.raises(ValueError, match="webhook secret") as weak:
        WebhookSigner(SecretStr(secret))
    assert len(secret) < 8 or secret not in str(weak.value)


def test_a_signer_has_one_or_two_secrets_and_does_not_show_them() -> None:
    for secrets in ((), (OLD, NEW, OTHER)):
        with pytest.raises(ValueError, match="one secret, or two"):
            WebhookSigner(*secrets)
    assert OLD.get_secret_value()[6:] not in repr(vars(signer(OLD, NEW)))


def test_a_secret_may_lack_prefix_and_padding() -> None:
    text = base64.b64encode(bytes(range(32))).decode()
    for secret in (text, text.rstrip("="), "whsec_" + text.rstrip("=")):
        assert signer(NEW).verify(signer(SecretStr(secret)).sign("msg_1", BODY), BODY) == "msg_1"


async def test_the_example_of_the_readme_runs() -> None:
    example = example_of(README, "Sign and verify webhooks")
    receiver = signer(OLD)

    def receive(request: httpx2.Request) -> httpx2.Response:
        headers = {name.title(): value for name, value in request.headers.items()}
        assert example["receive"](receiver, headers, request.content) == "msg_7"
        return httpx2.Response(204)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(receive)) as client:
        assert await example["deliver"](client, signer(OLD, NEW), "http://a.example", BODY) == 204
