"""The runner's start: ``python3 -I -S -B -m executor_image.runner`` as uid R, its channel on descriptor 3."""

from __future__ import annotations

import json
import socket
import sys

from executor_image import frames
from executor_image.runner.channel import Channel, ChannelClosed
from executor_image.runner.generation import Generation
from executor_image.runner.imports import PACKAGES

CHANNEL_FD = 3


def main() -> None:
    """Takes the SETUP and serves."""
    sys.path.append(PACKAGES)  # -S leaves it out, and with it every .pth file and sitecustomize
    sock = socket.socket(fileno=CHANNEL_FD)
    sock.set_inheritable(False)
    channel = Channel(sock)
    try:
        kind, body = channel.receive()
    except ChannelClosed:
        return
    if kind == frames.SETUP:
        generation = Generation(channel, json.loads(body))
        channel.send(frames.READY)
        generation.serve()


if __name__ == "__main__":
    main()
