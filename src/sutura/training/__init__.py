"""The one training loop that every method of the package shares."""
