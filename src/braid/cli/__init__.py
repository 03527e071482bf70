"""The command line; every command imports only what it needs, so that help and lists answer at once."""
