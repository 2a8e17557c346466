"""Figures, captions and tables of a study as a paper takes them: the test half throughout, at their final size."""
