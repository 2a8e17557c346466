"""Base models: one public dataclass a file, which gives a Hugging Face folder."""
