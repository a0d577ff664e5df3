"""Measurements of the engine on one accelerator, against what its memory and matrix units allow: python -m ops.bench.gpu"""
