"""What OpenRecon, the container platform of Siemens scanners, wants beside a server."""
