"""The SSRF guard refuses non-public addresses in every notation."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from services.kit.outbound.client import (
    OutboundPolicy,
    OutboundRefused,
    OutboundTimeouts,
    open_outbound,
)
from services.kit.outbound.guard import GuardedResolver, IpAddress, is_public

INSIDE = [
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10",
    "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "192.0.2.0/24", "198.18.0.0/15", "::1/128", "::/128",
    "fc00::/7", "fe80::/10", "ff00::/8", "fec0::/10", "2001:db8::/32", "2001::/32",
]  # fmt: skip
INSIDE_V4 = [ipaddress.IPv4Network(each) for each in INSIDE if "." in each]


def addresses(networks: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(networks).flatmap(lambda each: st.ip_addresses(network=each)).map(str)


inside_v4 = st.sampled_from(INSIDE_V4).flatmap(lambda each: st.ip_addresses(network=each))


def written(address: IpAddress) -> st.SearchStrategy[str]:
    """Every notation of an IPv4 address that some resolver accepts."""
    number = int(address)
    a, b, c, d = address.packed
    return st.sampled_from(
        [
            str(number), hex(number), oct(number).replace("0o", "0"), f"{a}.{number & 0xFFFFFF}",
            f"{a}.{b}.{c << 8 | d}", ".".join(map(hex, (a, b, c, d))), f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
            f"{a}.{b}.{c}.{d}.", f"{a:03}.{b:03}.{c:03}.{d:03}", f"{a}。{b}。{c}。{d}", f"{a}%2e{b}%2e{c}%2e{d}",
            f"[::ffff:{address}]", f"[::{address}]", f"[64:ff9b::{address}]", f"[64:ff9b:1::{address}]",
            f"[2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1]", f"[2001:0:{a:02x}{b:02x}:{c:02x}{d:02x}::]",
        ]
    )  # fmt: skip


@given(addresses(INSIDE))
def test_no_private_address_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "104.18.2.115",
        "2606:4700::6810:273",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
    ],
)
def test_addresses_of_the_public_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "168.63.129.16"]
)
def test_metadata_services_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def refused(url: str) -> bool:
    """Whether a call is refused before a connection; names resolve to loopback."""

    async def call() -> bool:
        async def resolve(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        async with open_outbound(OutboundTimeouts(), resolve=resolve) as client:
            try:
                await client.get(url)
            except (OutboundRefused, httpx2.InvalidURL, httpx2.UnsupportedProtocol):
                return True
        return False

    return asyncio.run(call())


@given(inside_v4.flatmap(written))
def test_a_private_address_is_refused_in_every_notation(host: str) -> None:
    assert refused(f"http://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://localhost./",
        "http://LOCALHOST/",
        "http://metadata.google.internal/",
        "http://①②⑦.0.0.1/",
        "http://user:pass@example.com/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1\\@example.com/",
        "http://[fe80::1%25eth0]/",
        "http://example.com:22/",
        "http://example.com:6379/",
        "http://example.com:3500/",
        "gopher://example.com/",
        "file:///etc/passwd",
        "ftp://example.com/",
        "http:///nohost",
    ],
)
def test_suspicious_urls_are_refused(url: str) -> None:
    assert refused(url)


def test_trust_is_for_one_host_and_port_only() -> None:
    policy = OutboundPolicy.trusting("http://127.0.0.1:6090/v1")
    policy.check_url(URL("http://127.0.0.1:6090/v1/models"))
    for url in ("http://127.0.0.1:6091/", "http://127.0.0.2:6090/", "http://127.0.0.1/"):
        with pytest.raises(OutboundRefused):
            policy.check_url(URL(url))


class Canary:
    """A private listener that must not get a connection."""

    def __init__(self) -> None:
        self.hits = 0

    def accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hits += 1
        writer.close()


@pytest.fixture
async def canary() -> AsyncIterator[tuple[Canary, int]]:
    found = Canary()
    async with await asyncio.start_server(found.accept, "127.0.0.1", 0) as server:
        yield found, server.sockets[0].getsockname()[1]


@pytest.mark.loopback
async def test_a_name_with_one_private_address_is_refused(
    canary: tuple[Canary, int],
) -> None:
    found, port = canary
    asked: list[str] = []

    async def resolve(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["8.8.8.8", "127.0.0.1"]

    async with open_outbound(
        OutboundTimeouts(), ports=frozenset({port}), resolve=resolve
    ) as client:
        with pytest.raises(OutboundRefused):
            await client.get(f"http://rebind.example:{port}/")
    assert asked == ["rebind.example"]
    assert found.hits == 0


@pytest.mark.loopback
async def test_a_redirect_to_a_private_address_is_refused(canary: tuple[Canary, int]) -> None:
    found, port = canary

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        location = f"http://127.0.0.1:{port}/".encode()
        writer.write(
            b"HTTP/1.1 302 Found\r\nlocation: " + location + b"\r\ncontent-length: 0\r\n\r\n"
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with open_outbound(OutboundTimeouts(), trusted=[base]) as client:
            assert (await client.get(base)).status_code == 302
            with pytest.raises(OutboundRefused):
                await client.get(base, follow_redirects=True)
    assert found.hits == 0


async def test_a_name_is_resolved_once_per_connection_and_only_checked_addresses_are_returned() -> (
    None
):
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])

    async def resolve(host: str, port: int) -> list[str]:
        return next(answers)

    resolver = GuardedResolver(OutboundPolicy(), resolve)
    assert [each["host"] for each in await resolver.resolve("rebind.example", 80)] == ["8.8.8.8"]
    with pytest.raises(OutboundRefused):
        await resolver.resolve("rebind.example", 80)
