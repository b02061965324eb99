"""Firebase Auth: signatures by Google's certificates, users by the official SDK."""

from services.auth.adapters.firebase.certificates import Certificates
from services.auth.adapters.firebase.directory import (
    AdminDirectory,
    open_emulated_admin,
    open_service_account_admin,
)
from services.auth.adapters.firebase.signatures import EmulatedSignatures, GoogleSignatures

__all__ = [
    "AdminDirectory",
    "Certificates",
    "EmulatedSignatures",
    "GoogleSignatures",
    "open_emulated_admin",
    "open_service_account_admin",
]
