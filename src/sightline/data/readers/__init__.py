"""Readers of raw layouts: one file each, registered by its last statement, `READER = Reader(...)`."""
