"""What is allowed, and what follows. Pure: time, chance and ids are passed in."""
