"""Imports the libraries of worker processes once; run as a program, this is the template that workers are forked from.

The driver, which plans and waits, imports the heavy ones where they are used, and rarely at all.
"""

from __future__ import annotations

import gc
import socket
import sys

import rouge_score.rouge_scorer  # noqa: F401
import torch
from transformers import AutoModelForImageTextToText, DynamicCache  # noqa: F401

import study.engine.fsdp
import study.stages.pipeline  # noqa: F401
from study.engine.fork_server import serve

if __name__ == "__main__":
    assert not torch.cuda.is_initialized(), "forks of a process that has used a GPU cannot use one"
    gc.freeze()  # garbage collection in a fork then copies no shared pages
    serve(socket.socket(fileno=int(sys.argv[1])))
