"""Benchmarks: Aegis and its peers side by side in one run, as ratios where machines are noisy."""
