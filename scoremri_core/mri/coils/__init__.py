"""Coil sensitivity maps and virtual coils."""
