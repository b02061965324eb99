"""Ports of the tests: one table, so that stages and a developer's own stack run side by side.

`tests/contract/test_port_offsets.py` computes every port and refuses an overlap. An offset that leaves room for twenty
apps with two hosts each is a sum of one of 0, 4400, 8800, 13200, 17600, 22000 and one of 0, 50, 200, 250.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DAPR_YAML: Final = "dapr.yaml"
MODEL: Final = 6095
"""Port of the scripted model, before the offset."""
SIDECARS: Final = 3590
"""HTTP port of the first sidecar beside a stack, before the offset; each has three more ports above it."""
SERVERS: Final = "servers of component"


def sidecar_ports(first: int, count: int) -> tuple[int, ...]:
    """The ports of sidecars that `yocaso sidecar` runs: HTTP, gRPC, internal gRPC and metrics."""
    steps = (0, 1000, 2000, 6000)
    return tuple(first + number + step for number in range(count) for step in steps)


@dataclass(frozen=True, slots=True)
class TestStack:
    """Where a stack of the tests runs.

    `template` names its run template, `hosts` is how many of each app may run, `more` has ports that the tests
    themselves take, before the offset is added.
    """

    __test__ = False  # no test class

    offset: int
    template: str = DAPR_YAML
    hosts: int = 1
    more: Iterable[int] = ()


STACKS: Final = {
    "a developer's": TestStack(0, more=sidecar_ports(3600, 10)),
    f"{SERVERS} apps": TestStack(50, more=(*range(7101, 7191, 10), *range(7201, 7221, 10))),
    f"{SERVERS} kit": TestStack(200),
    f"{SERVERS} blocks": TestStack(250),
    f"{SERVERS} cli": TestStack(9000),
    "chaos": TestStack(4400, hosts=2),
    "e2e": TestStack(4450, more=(*sidecar_ports(SIDECARS, 10), *range(7190, 7200))),
    "e2e without certificates": TestStack(4600, more=sidecar_ports(SIDECARS, 10)),
    "dapr run": TestStack(8850),
    "faults": TestStack(4650, hosts=2, more=range(6470, 6480)),
    "yocaso up": TestStack(8800),
    "upgrade": TestStack(22_600),
    "firebase": TestStack(9050, "tests/support/firebase/dapr.yaml"),
    "actors": TestStack(13_200, "tests/component/kit/actors/dapr.yaml", hosts=2),
    "workflows": TestStack(13_250, "tests/component/kit/workflows/dapr.yaml"),
    "rpc client": TestStack(13_400, "tests/component/kit/rpc_client/dapr.yaml"),
    "bindings": TestStack(13_450, "tests/component/bindings/dapr.yaml", more=(7242,)),
    "jobs": TestStack(17_600, "tests/component/jobs/dapr.yaml", hosts=2),
    "pubsub": TestStack(17_650, "tests/component/pubsub/dapr.yaml", hosts=2),
    "objects": TestStack(17_800, "tests/component/cli/apps/dapr.yaml"),
    "commands": TestStack(15_000, "tests/component/cli/apps/dapr.yaml"),
    "soak": TestStack(22_000, hosts=2),
    "bench": TestStack(21_250, hosts=2),
    "bench of an app": TestStack(22_200, hosts=2, more=range(7190, 7200)),
}
"""By name; what is recorded for `upgrade` has its ports in it. A bench runs alone, so benches share theirs."""

PORTS: Final = {
    "firebase": 2101,
    "firebase emulator's": 2104,
    "firebase e2e": 2106,
    "unit test of a sidecar": 2120,
    "a port that it needs": 2120 + 2000,
    "emulator": 2150,
    "emulator hub": 2151,
    "emulator logging": 2152,
}
"""Ports of single servers: below those of any stack."""


def offset_of(name: str) -> int:
    """The port offset of a stack."""
    return STACKS[name].offset
