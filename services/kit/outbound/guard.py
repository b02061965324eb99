"""SSRF guard: outbound calls may only reach public addresses on web ports, and the operator's own endpoints."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self

import httpx2
from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override
from yarl import URL

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Resolves a host and port to addresses."""

WEB_PORTS: Final = frozenset({80, 443})

# In addition to `is_global`: embedded IPv4, cloud services on public addresses, and ranges that Python does not know.
_REFUSED: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "168.63.129.16/32",  # Azure's host service
        "192.88.99.0/24",  # 6to4 relays
        "192.0.0.0/24",
        "240.0.0.0/4",
        "::/96",  # IPv4-compatible
        "64:ff9b:1::/48",  # local NAT64
        "100::/64",
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",  # site-local
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_HOST: Final = re.compile(
    r"(?=.{1,253}\.?$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_-]{1,63}\.?"
)
_NUMBER: Final = re.compile(r"(?:\d+|0x[0-9a-f]*)")


class OutboundRefused(httpx2.ConnectError):
    """The guard refused the call; nothing was sent."""


@dataclass(frozen=True, slots=True)
class OutboundPolicy:
    """Allowed ports, and the (host, port) pairs of the operator's settings, which may be private."""

    ports: frozenset[int] = WEB_PORTS
    trusted: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def trusting(cls, *base_urls: str, ports: frozenset[int] = WEB_PORTS) -> Self:
        """A policy that trusts the hosts and ports of these URLs."""
        urls = [URL(each) for each in base_urls]
        return cls(ports, frozenset((url.host or "", url.port or 0) for url in urls))

    def check_url(self, url: URL) -> None:
        """Check what needs no name resolution.

        Raises:
            OutboundRefused: for its scheme, user info, host or port.
        """
        host, port = url.host or "", url.port or 0
        if url.scheme not in ("http", "https"):
            raise OutboundRefused("only http and https are allowed")
        if url.raw_user is not None or url.raw_password is not None:
            raise OutboundRefused("a URL must not carry credentials")
        if (host, port) in self.trusted:
            return
        if port not in self.ports:
            raise OutboundRefused(f"port {port} is not allowed")
        if (address := _literal(host)) is not None:
            self.check_addresses([address])

    def check_addresses(self, addresses: Iterable[IpAddress]) -> None:
        """Check the addresses of a host.

        Raises:
            OutboundRefused: one is not public, or there are none.
        """
        found = list(addresses)
        if not found or not all(is_public(address) for address in found):
            raise OutboundRefused("the host has no public address, or a private one")


def is_public(address: IpAddress) -> bool:
    """Whether an address, and an IPv4 address embedded in it, is on the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if embedded := _embedded(address):
            return is_public(embedded)
        if address.scope_id is not None:
            return False
    if any(address in network for network in _REFUSED if network.version == address.version):
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _literal(host: str) -> IpAddress | None:
    """The address, if the host is one, or None for a name; other forms are refused."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    # Some resolvers read a host that ends in a number as an address (0x7f.1, 2130706433).
    if not _HOST.fullmatch(host) or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        raise OutboundRefused("the host is neither a name nor a plain address")
    return None


async def resolve_by_system(host: str, port: int) -> list[str]:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


class GuardedResolver(AbstractResolver):
    """Resolves once per connection and returns only checked addresses, so that DNS rebinding has no effect."""

    def __init__(self, policy: OutboundPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = [
            ipaddress.ip_address(each) for each in dict.fromkeys(await self._resolve(host, port))
        ]
        if (host, port) not in self._policy.trusted:
            self._policy.check_addresses(addresses)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    @override
    async def close(self) -> None:
        """No-op: it holds no resources."""
