"""Benchmarks: one public dataclass a file; `_x/` reads the files of one, `_shared/` those of several."""
