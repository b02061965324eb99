"""Rules of auth. Pure: time, random text and ids are parameters."""
