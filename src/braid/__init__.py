"""Braid trains a policy from whatever signal there is."""
