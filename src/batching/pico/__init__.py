"""The embedded model: where its directory is and what it is called. Nothing is loaded here."""

from pathlib import Path
from typing import Final

MODEL_NAME: Final = "quire-pico"
WEIGHTS_DIR: Final = Path(__file__).resolve().parent / "weights"

__all__ = ["MODEL_NAME", "WEIGHTS_DIR"]
