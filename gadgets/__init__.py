"""All that touches a stream: Gadgetron nodes, their protocol and service, and the command line."""
