"""Simulated scans with a known truth, and undersampling of recorded ones."""
