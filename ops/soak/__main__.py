"""`python -m ops.soak`."""

from ops.soak.command import main

if __name__ == "__main__":
    main(prog_name="python -m ops.soak")
