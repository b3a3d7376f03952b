"""Comparisons of methods: evaluate, compare, benchmark, validate."""
