"""What drives the stream, whatever its stages do: reading, turns at the device, sending, saving."""
