"""Worlds of observations and actions: batched mazes, pendulum and cart-pole, Gymnasium, and the corruption of logs."""
