"""`python -m control.exporter`, which is how the controller starts it."""

from control.exporter.main import main

main()
