"""The engine on one accelerator, beside what its memory and matrix units allow: python -m ops.bench.gpu"""
