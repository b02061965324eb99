"""The RPC services of auth: authorize, call, return."""
