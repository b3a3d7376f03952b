"""Stages of the stream, one per file; each takes an iterator and returns one."""
