"""The protobuf JSON mapping of messages."""

from datetime import datetime
from enum import StrEnum

import pytest
from pydantic import ValidationError

from services.kit.contract import (
    Int64,
    Message,
    RpcService,
    Timestamp,
    kebab,
)
from tests.requirements import requirement


class Color(StrEnum):
    RED = "RED"


class Sample(Message):
    big_number: Int64 = 0
    at_time: Timestamp | None = None
    color: Color | None = None


@requirement("kit:rpc-client")
def test_the_default_time_limit_of_an_internal_method_is_shorter() -> None:
    service = RpcService("yocaso.x.v1.XService", "X")
    user = service.unary("A", Sample, Sample, "a", scope="x")
    own = service.unary("B", Sample, Sample, "b", internal=True)
    slow = service.unary("C", Sample, Sample, "c", internal=True, timeout_seconds=60)
    assert [each.timeout_seconds for each in (user, own, slow)] == [30, 10, 60]


@requirement("kit:json-mapping")
@pytest.mark.parametrize(
    ("sent", "back"),
    [
        ('{"bigNumber":"9007199254740993"}', b'"bigNumber":"9007199254740993"'),
        ('{"bigNumber":5}', b'"bigNumber":"5"'),
        ('{"big_number":"-5"}', b'"bigNumber":"-5"'),
        ('{"atTime":"2026-01-01T02:00:00+02:00"}', b'"atTime":"2026-01-01T00:00:00Z"'),
        ('{"atTime":"2026-01-01T00:00:00.5Z"}', b'"atTime":"2026-01-01T00:00:00.500000Z"'),
        ('{"color":"RED"}', b'"color":"RED"'),
    ],
)
def test_values_are_serialized_as_protobuf_json(sent: str, back: bytes) -> None:
    assert back in Sample.model_validate_json(sent).to_json()


@requirement("kit:json-mapping")
@pytest.mark.parametrize(
    "sent",
    [
        '{"unknown":1}',
        '{"bigNumber":"9223372036854775808"}',
        '{"bigNumber":"1e3"}',
        '{"atTime":"2026-01-01T00:00:00"}',
        '{"color":"red"}',
    ],
)
def test_invalid_json_values_are_refused(sent: str) -> None:
    with pytest.raises(ValidationError):
        Sample.model_validate_json(sent)


def test_null_fields_are_omitted() -> None:
    assert Sample().to_json() == b'{"bigNumber":"0"}'


def test_a_timestamp_keeps_its_instant() -> None:
    sample = Sample.model_validate_json('{"atTime":"2026-01-01T02:00:00+02:00"}')
    assert sample.at_time == datetime.fromisoformat("2026-01-01T00:00:00+00:00")


def test_a_service_derives_its_paths() -> None:
    service = RpcService("yocaso.app.v1.ThingService", "Things")
    method = service.unary("DoIt", Sample, Sample, "Does it", public=True)
    assert service["DoIt"].path == "/yocaso.app.v1.ThingService/DoIt"
    assert method.edge_path == "/api/v1/app/thing/do-it"
    assert kebab("ListEvents") == "list-events"
    with pytest.raises(KeyError):
        service["Other"]
