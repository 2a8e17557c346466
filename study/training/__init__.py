"""Schedule, lesson sampler, losses, the one loop."""
