"""Numbers from rows and texts, and objectives; no torch. With core, all that analysis/ may import."""
