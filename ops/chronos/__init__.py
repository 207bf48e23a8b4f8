"""Chronos, the database in the box: an LSM tree behind a line protocol and HTTP."""
