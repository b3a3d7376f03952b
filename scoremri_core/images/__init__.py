"""Image series: reading, geometry, export to DICOM and NIfTI."""

RESEARCH_ONLY = "For research use only, not for diagnosis."
