"""Samplers: how a policy produces behaviour.

- `sampler`: batched decoding of a causal language model with a key-value cache.
"""
