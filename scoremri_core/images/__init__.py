"""Images as they are carried away: series of them, where they lie in space, DICOM and NIfTI."""

RESEARCH_ONLY = "For research use only, not for diagnosis."
