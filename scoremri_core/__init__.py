"""Score-based MRI reconstruction: arrays and mathematics, no sockets."""
