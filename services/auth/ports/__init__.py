"""What this app needs of the outside world."""
