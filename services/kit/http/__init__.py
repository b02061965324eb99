"""HTTP serving: the app factory, RPC routes, event streams, idempotency, load shedding."""
