"""Training steps of language models, and the contestants that take them."""
