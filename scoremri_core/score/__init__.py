"""Scores of reconstructions."""
