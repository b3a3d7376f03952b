"""Retrospective undersampling of fully sampled scans."""
