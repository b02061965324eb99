"""An app with jobs on a real sidecar and scheduler."""
