"""What other apps may know of `workflows`."""
