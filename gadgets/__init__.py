"""Gadgetron nodes: each stage of the stream is an iterator to an iterator."""
