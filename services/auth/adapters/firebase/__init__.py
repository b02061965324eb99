"""Firebase Auth: signatures by Google's certificates, users by the Admin SDK."""
