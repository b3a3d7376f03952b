"""Formats of raw data: each is read as an ISMRMRD scan, one file a format."""
