"""Events that auth receives."""

from typing import Annotated

from fastapi import Depends

from services.auth.service.accounts import AccountService
from services.contracts.llm.topics import CONVERSATION_DELETED, ConversationDeleted
from services.kit.dapr.pubsub.cloudevents import Event
from services.kit.dapr.pubsub.subscriptions import EventRouter
from services.kit.http.dependencies import provided
from services.kit.storage.db import Transaction

events = EventRouter()

Accounts = Annotated[AccountService, Depends(provided(AccountService))]


@events.subscribe(CONVERSATION_DELETED)
async def record_deletion(
    event: Event[ConversationDeleted], transaction: Transaction, accounts: Accounts
) -> None:
    await accounts.record_conversation_deletion(event.data, transaction)
