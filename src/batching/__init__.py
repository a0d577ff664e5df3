"""The engine: scheduler, paged KV cache, model, sampler. Knows tokens; knows nothing of HTTP or text."""
