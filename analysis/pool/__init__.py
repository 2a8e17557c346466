"""Studies of the same settings on several worlds as one answer: `mus report --pool runs/a runs/b runs/c`.

The studies are read and checked by `reading`; what they say together is `study.metrics.worlds`.
"""
