"""How good a policy is: pass@k on held-out problems, and statistics over seeds.

- `evaluate`: sample, verify and score a policy on a task.
- `pass_at_k`: the unbiased estimator.
- `statistics`: intervals over seeds and problems.
"""
