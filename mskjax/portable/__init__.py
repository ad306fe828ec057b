"""A run as files that others run: programs, weights and what surrounds them (docs/export.md)."""
