"""The experiments of Jalal et al. 2021 and Ramzi et al. 2020: trials, scores, tables, figures."""

PRESETS = ("default", "quick", "paper", "smoke")
