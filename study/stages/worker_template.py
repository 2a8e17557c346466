"""What worker processes need is imported here once; run as a program, this is the template that they are forked off.

The driver, which plans and waits, imports the heavy ones of these where they are used, and mostly never.
"""

from __future__ import annotations

import gc
import socket
import sys

import rouge_score.rouge_scorer  # noqa: F401
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, DynamicCache  # noqa: F401

import study.engine.fsdp
import study.stages.pipeline  # noqa: F401
from study.engine.fork_server import serve

if __name__ == "__main__":
    assert not torch.cuda.is_initialized(), "forks of a process that has used a GPU cannot use one"
    gc.freeze()  # a collection in a fork then leaves alone what all of them share, and copies none of its pages
    serve(socket.socket(fileno=int(sys.argv[1])))
