"""Public interfaces of the apps: manifests, RPC services, messages, workflow and activity references."""
