"""Methods of `auth` called by an app that checks access or owns objects."""

from typing import Final

from services.contracts.auth.audit import RECORD_AUDIT_EVENT
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE

ACCESS_CALLS: Final = (
    *(method for method in AUTHORIZATION_SERVICE.methods if method.internal),
    RECORD_AUDIT_EVENT,
)
"""Part of `App.calls` of every app with an authorized route."""
