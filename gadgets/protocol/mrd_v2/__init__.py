"""MRD version 2."""
