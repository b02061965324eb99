"""What an app calls that checks access and owns objects."""

from typing import Final

from services.contracts.auth.audit import RECORD_AUDIT_EVENT
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE

ACCESS_CALLS: Final = (
    *(method for method in AUTHORIZATION_SERVICE.methods if method.internal),
    RECORD_AUDIT_EVENT,
)
"""For `App.calls` of every app whose routes name a caller."""
