"""Measurements: random checkpoints, baselines and the commands that compare servers in one run."""
