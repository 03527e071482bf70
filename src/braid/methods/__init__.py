"""Methods: one file per paper, each a frozen dataclass of hyper-parameters and the strands in which it differs.

- `registry`: finds methods by name, in the library or in a user's file.
- `token`: the spine of methods that train a token policy.
- `context`: what a method may ask for during a step.
"""
