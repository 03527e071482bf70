"""Contextual bandits: one decision per request, and a reward for the chosen action only."""
