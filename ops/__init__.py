"""What one runs Aegis with: sample configuration, the demo database, benchmarks."""
