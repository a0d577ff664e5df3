"""What the container image holds besides the wheel."""
