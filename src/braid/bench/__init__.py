"""Speed: Braid and other libraries on the same work, side by side in one run."""
