"""ISMRMRD scans: files, headers, gridding of readouts, other raw-data formats."""
