"""The embedded host, the client and the server."""
