"""Turn worker telemetry into Prometheus metrics."""
