"""Pages of images and facts, for a file and for a running server."""
