"""Builds `quire-pico`, the embedded chat model: corpus, tokenizer, training, evaluation.

`python -m ops.pico` from the repository root is the whole recipe.
"""
