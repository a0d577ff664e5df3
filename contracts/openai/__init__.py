"""The wire structs of OpenAI's API, one module per resource."""
