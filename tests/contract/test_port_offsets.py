"""No two stacks or servers of the tests share a port, so any of them may run at the same time."""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from services.cli.stack.ports import INFRA_PORTS, MAX_PORT, REPLICA_STEP
from tests.contract.sources import ROOT
from tests.support import port_offsets
from tests.support.port_offsets import MODEL, PORTS, STACKS, TestStack

TABLE = Path(port_offsets.__file__)
LEAST = 1_024
LARGEST = 99_999


def ports_of(stack: TestStack) -> set[int]:
    """Every port of a stack: servers, model, apps, sidecars, further hosts of apps, and what its tests take."""
    apps = set(_app_ports(ROOT / stack.template))
    hosts = {port + REPLICA_STEP * host for port in apps for host in range(stack.hosts)}
    unshifted = {*INFRA_PORTS.values(), MODEL, *hosts, *stack.more}
    return {port + stack.offset for port in unshifted}


def _app_ports(template: Path) -> Iterator[int]:
    """Read without its paths: those of some templates exist only in the copy that a test writes."""
    for app in yaml.safe_load(template.read_text())["apps"]:
        yield from (value for name, value in app.items() if name.lower().endswith("port"))


def overlaps(taken: dict[str, set[int]]) -> dict[tuple[str, str], list[int]]:
    pairs = itertools.combinations(taken, 2)
    return {(a, b): sorted(both) for a, b in pairs if (both := taken[a] & taken[b])}


def test_no_two_stacks_share_a_port() -> None:
    taken = {name: ports_of(stack) for name, stack in STACKS.items()}
    taken |= {f"port of {name}": {port} for name, port in PORTS.items()}
    assert overlaps(taken) == {}


@pytest.mark.parametrize("name", STACKS)
def test_every_port_is_below_the_ephemeral_range(name: str) -> None:
    ports = ports_of(STACKS[name])
    assert min(ports) >= LEAST
    assert max(ports) <= MAX_PORT


def test_a_stack_with_the_offset_of_another_is_found() -> None:
    ports = ports_of(STACKS["chaos"])
    assert overlaps({"one": ports, "other": ports, "third": {1}}) == {
        ("one", "other"): sorted(ports)
    }


def test_replicas_and_further_ports_count() -> None:
    single, double = (ports_of(TestStack(0, hosts=hosts)) for hosts in (1, 2))
    assert 7101 in single
    assert {7201, 3611} <= double - single
    assert 9 in ports_of(TestStack(4, more=(5,)))


def test_offsets_and_ports_of_tests_are_only_in_the_table() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path != TABLE
        for node in _own_numbers(ast.parse(path.read_text()))
    ]
    assert found == []


def _own_numbers(tree: ast.Module) -> Iterator[ast.stmt | ast.keyword]:
    """Numbers of ports that are given a name ending in OFFSET or PORT, or passed as an offset."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int(number))):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=int(number))):
                pass
            case ast.keyword(arg=str(name), value=ast.Constant(value=int(number))):
                pass
            case _:
                continue
        if name.upper().endswith(("OFFSET", "_PORT")) and LEAST <= number <= LARGEST:
            yield node
