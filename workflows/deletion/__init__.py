"""Account deletion: every app erases its data of the user, then the receipt is completed."""
