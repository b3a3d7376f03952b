"""Scans: files of them, their headers and masks, and scans that are simulated or undersampled."""
