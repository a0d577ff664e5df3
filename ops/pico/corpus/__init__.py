"""The synthetic English that `quire-pico` learns from, one module per theme.

Every theme is a function from a `random.Random` to one sample; `mixture` weighs them.
Nothing here knows about tokens, tensors or files.
"""
