"""The topics of the shop, and both manifests."""

from typing import Final

from services.kit.contract import Message
from services.kit.manifest import App
from services.kit.topics import Topic


class OrderPlaced(Message):
    """An order; a number of `BUG` or below breaks the handler until it is mended, one of `REFUSED` is refused."""

    number: int
    user_id: str = "ada"
    text: str = ""


class OrderMoved(Message):
    """The `step`th change of an order, which is the event's key."""

    step: int


BUG: Final = -100
REFUSED: Final = -1
SLOW: Final = -2
UNAVAILABLE: Final = -3

PLACED: Final = Topic("llm.order.placed.v1", OrderPlaced, "An order was placed.")
MOVED: Final = Topic("llm.order.moved.v1", OrderMoved, "An order was moved.", ordered=True)

# The local stack knows apps by these ids.
SHOP: Final = App(
    id="llm",
    purpose="sells",
    number=12,
    actors=("TillActor",),
    publishes=(PLACED, MOVED),
    components=("statestore", "secrets"),
)
LEDGER: Final = App(
    id="auth", purpose="counts", number=11, subscribes=(PLACED, MOVED), components=("secrets",)
)
