"""What other apps may know of `edge`."""
