"""The score of a reconstruction."""
