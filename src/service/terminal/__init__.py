"""Commands that are clients of a running server: they speak its public HTTP API and nothing else."""
