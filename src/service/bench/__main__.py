"""Runs the load generator without the rest of the command line: `python -m service.bench`."""

from __future__ import annotations

from service.bench.command import bench_command

if __name__ == "__main__":
    bench_command()
