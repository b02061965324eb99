"""Tenants of the access matrix: three people of two organizations, their credentials and their objects."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from services.auth.adapters.hashing import random_base62
from services.auth.domain.keys import new_secret
from services.contracts.apps import KEY_SCOPES, USER_SCOPES
from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE, KeyMode
from services.contracts.auth.tokens import TOKEN_SERVICE
from tests.e2e.access_matrix import PEOPLE, CredentialState, Kind, Principal, Row, Target
from tests.e2e.actions import (
    api_key,
    exchanged,
    missing,
    refreshed,
    signed_in,
    until_refused,
    user_of,
)
from tests.support.firebase import FirebaseServer
from tests.support.platform import Client, Platform

MadeT = TypeVar("MadeT")


@dataclass
class Person:
    """A user who administers an organization, and a canary word in every text that the user writes."""

    client: Client
    canary: str
    organization: str
    objects: dict[object, dict[str, str]] = field(default_factory=dict[object, dict[str, str]])

    @property
    def user(self) -> str:
        return user_of(self.client)


class Tenants:
    """Creates people at entry, and credentials and objects on first use; calls that end or rename one get a new one.

    Calls may run at the same time: each credential and object is made once.
    """

    def __init__(self, platform: Platform, google: FirebaseServer) -> None:
        self.google = google
        self._platform = platform
        self._open = AsyncExitStack()
        self.people: dict[Principal, Person] = {}
        self._making: dict[object, asyncio.Task[Any]] = {}

    async def __aenter__(self) -> "Tenants":
        for principal in PEOPLE:
            self.people[principal] = await self.new_person(principal.name.lower())
        # The colleague is a member of the organization that the owner administers.
        await self._platform.write_tuples(
            (
                f"user:{self.people[Principal.COLLEAGUE].user}",
                "member",
                f"organization:{self.people[Principal.OWNER].organization}",
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for making in self._making.values():
            making.cancel()
        await self._open.aclose()

    async def _once(self, what: object, make: Callable[[], Coroutine[Any, Any, MadeT]]) -> MadeT:
        """What `make` returned for the first caller who asked."""
        if what not in self._making:
            self._making[what] = asyncio.create_task(make())
        return await asyncio.shield(self._making[what])

    async def new_person(self, name: str) -> Person:
        """Create a person who administers a new organization."""
        canary = f"canary{uuid.uuid4().hex[:12]}"
        user, organization = f"{name}-{uuid.uuid4().hex[:8]}", f"org-{uuid.uuid4().hex[:12]}"
        client = await self._open.enter_async_context(self._platform.client(user))
        await self._platform.write_tuples((f"user:{user}", "admin", f"organization:{organization}"))
        return Person(client, canary, organization)

    def person(self, principal: Principal) -> Person:
        """The person whose credential a principal has."""
        return self.people.get(principal) or self.people[Principal.OWNER]

    def others(self, principal: Principal) -> list[Person]:
        """The people whose data a principal must not see: all, for an invalid or low-scope credential."""
        mine = self.person(principal) if principal.credential is CredentialState.VALID else None
        return [each for each in self.people.values() if each is not mine]

    async def credential(self, principal: Principal, scope: str | None) -> str | None:
        """A principal's credential; one of low scope has every scope except `scope`."""
        at = (principal, scope if principal.credential is CredentialState.LOW_SCOPE else None)
        return await self._once(at, lambda: self._new_credential(principal, scope))

    async def _new_credential(self, principal: Principal, scope: str | None) -> str | None:
        client = self.person(principal).client
        match principal:
            case Principal.ANONYMOUS:
                return None
            case Principal.API_KEY:
                _, secret = await api_key(client)
                return secret
            case Principal.LOW_KEY:
                _, secret = await api_key(client, scopes=[s for s in KEY_SCOPES if s != scope])
                return secret
            case Principal.LOW_TOKEN:
                return self._platform.token(user_of(client), [s for s in USER_SCOPES if s != scope])
            case Principal.SIGNED_OUT | Principal.REVOKED_KEY | Principal.REVOKED_KEY_TOKEN:
                return await self.revoked(principal, client)
            case _:
                return client.token

    async def revoked(self, principal: Principal, client: Client) -> str:
        """Create and use a credential, revoke it, and wait until it is refused."""
        if principal is Principal.SIGNED_OUT:
            pair = await refreshed(client, await signed_in(self._platform, user_of(client)))
            shown = client.as_(pair["accessToken"])
            await shown.must("ListConversations")
            await client.must_of(TOKEN_SERVICE, "RevokeToken", token=pair["refreshToken"])
        else:
            key_id, secret = await api_key(client)
            traded = principal is Principal.REVOKED_KEY_TOKEN
            shown = client.as_(await exchanged(client, secret) if traded else secret)
            await shown.must("ListConversations")
            await client.must_of(API_KEY_SERVICE, "RevokeApiKey", keyId=key_id)
        await until_refused(shown)
        return shown.token

    async def body(
        self, row: Row, principal: Principal, target: Target, *, anew: bool
    ) -> dict[str, Any]:
        """The request body of a principal for a target; `anew` creates the object."""
        named = own = await self.ids_of(row.kind, principal, target, anew=anew)
        if row.own and target is not Target.OWN:
            own = await self.ids_of(row.kind, principal, Target.OWN)
        return {
            **row.rest,
            **{name: own[name] for name in row.own},
            **{name: named[name] for name in row.names},
        }

    async def ids_of(
        self, kind: Kind, principal: Principal, target: Target, *, anew: bool = False
    ) -> dict[str, str]:
        """The ids of an object, by request field."""
        person = self.person(principal)
        if target is Target.NONE:
            return {}
        if target is Target.MISSING:
            return missing_ids(kind)
        if target is Target.OWN:
            return await self._kept(person, kind, MAKERS[kind], anew=anew)
        holder = self._holder(principal)
        if target is Target.FOREIGN:
            return await self._kept(holder, kind, MAKERS[kind], anew=anew)
        role = "VIEWER" if target is Target.VIEWED else "EDITOR"

        async def shared(_: Tenants, holder: Person) -> dict[str, str]:
            made = await new_conversation(self, holder)
            member = f"organization:{holder.organization}#member"
            subject = member if principal is Principal.COLLEAGUE else f"user:{person.user}"
            await share(holder, made["object"], subject, role)
            return made

        return await self._kept(holder, (principal, target), shared, anew=anew)

    def _holder(self, principal: Principal) -> Person:
        """The person whose objects are foreign to a principal."""
        foreign_to_owner = self.person(principal) is self.people[Principal.OWNER]
        return self.people[Principal.STRANGER if foreign_to_owner else Principal.OWNER]

    async def _kept(
        self, holder: Person, what: object, make: "Maker", *, anew: bool
    ) -> dict[str, str]:
        if anew:
            return await make(self, holder)

        async def keep() -> dict[str, str]:
            holder.objects[what] = await make(self, holder)
            return holder.objects[what]

        return await self._once((holder.user, what), keep)

    async def new_session(self, holder: Person) -> dict[str, str]:
        """A refresh token of a new session."""
        token = await signed_in(self._platform, holder.user)
        return {"refreshToken": token, "token": token}

    async def new_deletion(self) -> dict[str, str]:
        """The deletion of a new user."""
        async with self._platform.client(f"gone-{uuid.uuid4().hex[:8]}") as client:
            begun = await client.must_of(ACCOUNT_SERVICE, "DeleteAccount")
        return {"deletionId": begun["deletionId"]}


async def share(holder: Person, target: str, subject: str, role: str) -> None:
    await holder.client.must_of(
        AUTHORIZATION_SERVICE, "Share", object=target, subject=subject, role=role
    )


async def new_conversation(_: Tenants, holder: Person) -> dict[str, str]:
    """Create a conversation with a turn, a share and a link; every text contains the holder's canary."""
    word, client = holder.canary, holder.client
    made = await client.conversation(
        title=f"about {word}", systemPrompt=f"mind {word}", metadata={"note": word}
    )
    sent = await client.must("SendMessage", conversationId=made, text=f"tell me of {word}")
    target = f"conversation:{made}"
    await share(holder, target, f"user:guest-{word}", "VIEWER")
    link = await client.must_of(AUTHORIZATION_SERVICE, "CreateShareLink", object=target)
    return {
        "conversationId": made,
        "turnId": sent["turn"]["turnId"],
        "object": target,
        "linkId": link["linkId"],
        "token": link["token"],
    }


async def _new_key(_: Tenants, holder: Person) -> dict[str, str]:
    key_id, secret = await api_key(holder.client, f"key of {holder.canary}")
    return {"keyId": key_id, "subjectToken": secret}


async def _new_organization_key(_: Tenants, holder: Person) -> dict[str, str]:
    fields = {"organizationId": holder.organization}
    key_id, _secret = await api_key(holder.client, f"our key of {holder.canary}", **fields)
    return {"keyId": key_id}


async def _organization(_: Tenants, holder: Person) -> dict[str, str]:
    return {"organizationId": holder.organization}


async def _new_session(tenants: Tenants, holder: Person) -> dict[str, str]:
    return await tenants.new_session(holder)


async def _id_token(tenants: Tenants, holder: Person) -> dict[str, str]:
    """An ID token of a Firebase user who has just signed in."""
    tenants.google.add(holder.user, email=f"{holder.user}@example.com")
    return {"idToken": tenants.google.id_token(holder.user)}


async def _new_deletion(tenants: Tenants, _: Person) -> dict[str, str]:
    return await tenants.new_deletion()


Maker = Callable[[Tenants, Person], Awaitable[dict[str, str]]]
MAKERS: Final[dict[Kind, Maker]] = {
    Kind.CONVERSATION: new_conversation,
    Kind.TURN: new_conversation,
    Kind.LINK: new_conversation,
    Kind.LINK_TOKEN: new_conversation,
    Kind.API_KEY: _new_key,
    Kind.KEY_SECRET: _new_key,
    Kind.ORGANIZATION_KEY: _new_organization_key,
    Kind.ORGANIZATION: _organization,
    Kind.REFRESH_TOKEN: _new_session,
    Kind.ACCESS_TOKEN: _new_session,
    Kind.ID_TOKEN: _id_token,
    Kind.DELETION: _new_deletion,
}


def missing_ids(kind: Kind) -> dict[str, str]:
    """Well-formed ids of no object."""
    conversation = missing("conv")
    return {
        "conversationId": conversation,
        "turnId": missing("turn"),
        "object": f"conversation:{conversation}",
        "linkId": missing("link"),
        "keyId": missing("key"),
        "organizationId": missing("org"),
        "deletionId": missing("deletion"),
        "subjectToken": new_secret(KeyMode.LIVE, random_base62),
        "refreshToken": f"yr_{random_base62(72)}",
        "idToken": "a.b.c",
        "token": f"yl_{uuid.uuid4().hex}" if kind is Kind.LINK_TOKEN else random_base62(60),
    }
