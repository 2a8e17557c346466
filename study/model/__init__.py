"""One multimodal LLM: load, pack prompts, read likelihoods, reply, quantize, adapt, store a delta.

`families/` says what differs between model types.
"""
