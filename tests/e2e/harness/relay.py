"""Hands connections on, from one address to another: `HOST:PORT`, or `unix:PATH`. A process of its own, so that either end can be in another network."""

import os
import socket
import threading


def _listen(at):
    if at.startswith("unix:"):
        path = at.removeprefix("unix:")
        if os.path.exists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        return listener, at
    host, port = at.rsplit(":", 1)
    listener = socket.create_server((host, int(port)))
    return listener, f"{host}:{listener.getsockname()[1]}"


def _connect(to):
    if to.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(to.removeprefix("unix:"))
        return connection
    host, port = to.rsplit(":", 1)
    return socket.create_connection((host, int(port)))


def _copy(source, sink):
    try:
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(at, to):
    """Prints where it listens, and serves until it is killed."""
    listener, address = _listen(at)
    print(address, flush=True)
    while True:
        near, _ = listener.accept()
        far = _connect(to)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=_copy, args=(source, sink), daemon=True).start()
