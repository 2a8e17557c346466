"""What worker processes need is imported here once; run as a program, this is the template that they are forked off."""

from __future__ import annotations

import gc
import socket
import sys

import study.stages.pipeline  # noqa: F401
from study.engine.fork_server import serve

if __name__ == "__main__":
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
