"""Pub/sub: a transactional outbox with its relay, and subscriptions with an inbox and dead letters."""
