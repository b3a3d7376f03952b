"""From k-space to an image: calibrate, prepare, sample, assemble."""
