"""What is timed; every module here has `WORKLOADS`."""
