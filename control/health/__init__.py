"""Checks of servers: rise and fall (sans I/O), what one check does, who checks when."""
