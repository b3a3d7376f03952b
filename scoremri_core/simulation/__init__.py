"""Simulated scans with known truth, and retrospective undersampling."""
