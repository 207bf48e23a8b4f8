"""Where a backend's servers are found when the configuration does not name them: DNS, a file."""
