"""The routes of auth: authorize, call the service, return."""

from services.auth.rpc import accounts, audit, authorization, keys, tokens

routers = [accounts.rpc, audit.rpc, authorization.rpc, keys.rpc, tokens.rpc]

__all__ = ["routers", "tokens"]
