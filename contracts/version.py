"""The version, declared once: the package's metadata, `quire --version` and the engine's fingerprint read it here."""

VERSION = "0.1.0"
