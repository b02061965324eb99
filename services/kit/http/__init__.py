"""How an app is served: RPC methods, streams, idempotency, overload."""
