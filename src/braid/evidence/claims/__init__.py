"""One file per claim, named like its method; each holds `CLAIM`."""
