"""Attacks: one public dataclass a file; `_x.py` is shared by several."""
