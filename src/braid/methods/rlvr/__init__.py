"""Reinforcement learning from verifiable rewards, its baselines, and its hybrids with supervised fine-tuning."""
