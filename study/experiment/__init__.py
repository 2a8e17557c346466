"""One process, one trial: teach, unlearn, score, attack, record; no Ray."""
