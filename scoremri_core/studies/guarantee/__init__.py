"""Calibration of intervals on a site's fully sampled frames."""
