"""What is tested, room by room as in `study`."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
"""Where the repository lies, wherever in it a test does."""
