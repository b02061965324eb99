"""`yocaso chat`: conversations in the terminal."""
