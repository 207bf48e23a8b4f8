"""What is not wrong with a configuration, and yet seldom what somebody wants."""

from aegis.config import Config


def advice(config: Config, workers: int) -> list[str]:
    """Return a sentence for each; `workers` is how many there are to be."""
    return [
        f'backend "{backend.name}": max_connections = {backend.max_connections} is fewer than '
        f"{workers} workers, so connections move between workers while clients wait; "
        f"workers = {backend.max_connections} serves so few better"
        for backend in config.backends
        if 0 < backend.max_connections < workers
    ]
