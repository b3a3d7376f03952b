"""Noise of the receive coils."""
