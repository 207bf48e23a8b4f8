"""The control plane: controller, supervisor, exporter and aegis-ctl. No client byte passes here."""
