"""Older services whose clients Quire serves: one thin module for each, none of which knows an engine."""
