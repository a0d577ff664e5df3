"""`quire bench`: loads an OpenAI-compatible server and reports speed. Knows HTTP and SSE; nothing of Quire's engine."""
