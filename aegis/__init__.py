"""What every process of Aegis agrees on: configuration, limits, lifecycle, messages, metrics."""
