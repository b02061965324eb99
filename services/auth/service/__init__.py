"""The use cases of auth, one module per RPC service, and Firebase and the tuple outbox."""
