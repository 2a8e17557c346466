"""One multimodal LLM: load, pack prompts, read likelihoods, reply, quantize, adapt, store a delta.

`families/` says what differs between model types.

Shapes in comments and docstrings: B rows of a batch, L tokens of its longest row, Q and K tokens that attend and that
are attended to, T answer tokens of the whole batch, A answers, P prompts (in vision code: patches), N image tokens of a
picture, D width of hidden states, V vocabulary. A name with such a suffix, `logps_T`, has that shape.
"""
