"""Posterior samplers."""
