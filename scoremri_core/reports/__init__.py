"""HTML reports of reconstructions, for files and for a running server."""
