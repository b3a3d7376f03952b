"""Programs around the nodes: the embedded host, the client, the resident server."""
