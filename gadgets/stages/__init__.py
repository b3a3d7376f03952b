"""The stages of the stream, one a file: each is an iterator to an iterator."""
