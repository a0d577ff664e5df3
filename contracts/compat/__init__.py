"""The wire structs of older services whose clients Quire serves, one module per service."""
