"""Who calls, and may they: identity, access checks, limits."""
