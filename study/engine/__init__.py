"""Machines: processes, shards, micro-batches, Ray jobs, the Optuna search loop. Knows no model and no method."""
