"""Files for OpenRecon, the container platform of Siemens scanners."""
