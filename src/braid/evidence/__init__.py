"""Fair comparisons of methods, and what they show.

- `compare`: arms times seeds with the same base, data, budget and evaluation.
- `claim`: what a paper's claim is as an experiment; the claims themselves are in `claims`.
- `reproduce`: runs a claim; `numbers` reads its runs, `verdict` judges them, `records` keeps what was found.
- `report`: tables and plots of comparisons and claims.
"""
