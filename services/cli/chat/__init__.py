"""`yocaso chat`: a conversation in the terminal."""
