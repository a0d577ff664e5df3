"""The types that every part of Quire agrees on: stdlib and msgspec only, no behaviour of the engine or the server."""
