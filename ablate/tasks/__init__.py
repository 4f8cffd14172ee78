"""What can be trained and measured: each task in a package of its own."""
