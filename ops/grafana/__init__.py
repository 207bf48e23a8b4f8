"""Grafana for Aegis: the dashboard, made from what it shows, and what provisions it."""
