"""The routes, one module per resource: decode the body, call, reply; no logic of generation or of HTTP framing."""
