"""`python -m bench.serve`: our engine beside its peers, on the same weights and prompts, in one run. See docs/results.md."""
