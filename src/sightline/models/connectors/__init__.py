"""Connectors: one file each. See `models.connector`."""
