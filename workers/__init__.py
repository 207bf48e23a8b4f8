"""The data plane: one process per core that relays bytes and shares nothing."""
