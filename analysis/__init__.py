"""Reads a study folder and writes its tables, figures and report. Knows rows, never weights: no torch, no Ray."""
