"""Transport of the stream: reading ahead, turns at the device, sending, capture."""
