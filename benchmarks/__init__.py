"""``python -m benchmarks``: this machine's figures, each beside its floor in the same run. Nothing is asserted."""
