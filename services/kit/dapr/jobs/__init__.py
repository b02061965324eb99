"""Jobs of an app: registration with Dapr's scheduler, and runs that happen once per due time."""
