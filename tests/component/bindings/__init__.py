"""An app with bindings on a real sidecar: mail to a server of the test, and cron."""
