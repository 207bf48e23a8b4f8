"""aegis-ctl: one module per command, `app` puts them together."""
