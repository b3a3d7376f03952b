"""Raw-data formats, one per file; each is read as an ISMRMRD scan."""
