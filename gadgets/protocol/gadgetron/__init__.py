"""Gadgetron's wire protocol."""
