"""Fair comparisons of methods, and what they show.

- `compare`: arms times seeds with the same base, data, budget and evaluation.
- `report`: tables and plots of a comparison.
"""
