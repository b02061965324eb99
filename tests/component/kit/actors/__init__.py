"""An app with one actor, for tests of actors and their state on a real sidecar."""
