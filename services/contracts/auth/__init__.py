"""What other apps may know of `auth`."""
