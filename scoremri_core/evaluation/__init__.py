"""How good images are and how honest their uncertainty, on scans and on known posteriors."""
