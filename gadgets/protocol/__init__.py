"""Gadgetron's protocol: messages, documents, a node's connection, and chains of nodes."""
