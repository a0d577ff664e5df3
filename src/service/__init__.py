"""The HTTP side: decodes requests, renders prompts, streams text. Knows the engine by its protocol only; no torch."""
