"""The right to erasure: every app removes what it has of a user, then the receipt is complete."""
