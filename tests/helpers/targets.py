"""Nodes for the tests of the embedded host."""

from gadgets.protocol.gadgetron.connection import guarded, receive
from gadgets.protocol.gadgetron.wire import Endpoint


def double(connection):
    """Double the amplitude of acquisitions, as a plain gadgetron-python node."""
    for acquisition in connection:
        acquisition.data[:] *= 2
        connection.send(acquisition)


class Handler:
    def handle(self, connection):
        for item in connection:
            connection.send(item)


def fail(connection):
    next(connection)
    raise RuntimeError("out of luck")


@guarded
def fail_guarded(connection, on_loss):
    next(receive(connection))
    raise RuntimeError("out of luck")


def vanish(connection):
    next(connection)
    Endpoint(connection.socket.socket).abandon()
