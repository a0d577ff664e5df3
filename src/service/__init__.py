"""The HTTP side: decodes requests, renders prompts, streams text. Knows the engine by its protocol only; no torch."""

import sys

# litestar imports advanced-alchemy, and SQLAlchemy with it, wherever it is installed: 0.3 s more of every worker's
# start, and 0.4 s of CPU time (2-core x86, November 2026). Until `service.conversations` is imported, which takes the
# mark away, it finds nothing.
sys.modules.setdefault("advanced_alchemy", None)  # type: ignore[arg-type]
