"""The user who comes from Firebase: load, decide, save. Whoever calls has asked Firebase."""

from datetime import timedelta
from typing import Final

from typing_extensions import override

from services.auth.domain.firebase import FirebaseIdentity
from services.contracts.identities import (
    AdmitFirebaseUserCommand,
    FirebaseAccount,
    FirebaseAdmission,
    FirebaseBridgeActorInterface,
    FirebaseLinkResponse,
    FirebaseVerdict,
)
from services.kit.clock import Clock
from services.kit.contract import Empty
from services.kit.dapr.actors import ActorId, ActorRuntimeContext, DomainActor
from services.kit.dapr.state import DurableState
from services.kit.dapr.state_rows import StateStore

NOTHING: Final = FirebaseIdentity()


class FirebaseBridgeActor(DomainActor, FirebaseBridgeActorInterface):
    """State: the head alone."""

    def __init__(
        self,
        ctx: ActorRuntimeContext,
        actor_id: ActorId,
        store: StateStore,
        clock: Clock,
        believed: timedelta | None,
    ) -> None:
        super().__init__(ctx, actor_id)
        self._state = DurableState(store, f"FirebaseBridgeActor/{self.entity_id}", FirebaseIdentity)
        self._clock = clock
        self._believed = believed

    @override
    def forget(self) -> None:
        """Discard what was read."""
        self._state.forget()

    @override
    async def admit(self, command: AdmitFirebaseUserCommand) -> FirebaseAdmission:
        """Decide by what is known, and link the user where the sign-in counts."""
        identity = await self._load()
        verdict = identity.judge(command.authenticated_at, self._clock(), self._believed)
        if verdict is FirebaseVerdict.VALID:
            await self._save(identity, identity.linked(command))
        return FirebaseAdmission(verdict=verdict)

    @override
    async def record(self, account: FirebaseAccount) -> Empty:
        """Keep what Firebase said."""
        identity = await self._load()
        await self._save(identity, identity.told(account))
        return Empty()

    @override
    async def read_link(self) -> FirebaseLinkResponse:
        """Read the link."""
        return FirebaseLinkResponse(link=(await self._load()).link)

    @override
    async def unlink(self) -> Empty:
        """Forget the person."""
        await self._state.erase()
        return Empty()

    async def _load(self) -> FirebaseIdentity:
        return await self._state.load() or NOTHING

    async def _save(self, before: FirebaseIdentity, after: FirebaseIdentity) -> None:
        if after != before:
            await self._state.commit(after)
