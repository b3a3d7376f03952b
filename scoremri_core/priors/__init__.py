"""Learned image priors."""
