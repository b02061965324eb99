"""A fake of Firebase: certificates, Google's token endpoint and the Identity Toolkit."""

from tests.support.firebase.server import PROJECT, FirebaseServer, FirebaseUser, running_firebase
from tests.support.firebase.signing import Signer, forged

__all__ = ["PROJECT", "FirebaseServer", "FirebaseUser", "Signer", "forged", "running_firebase"]
