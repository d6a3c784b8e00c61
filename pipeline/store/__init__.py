"""Objects by URI, on object stores and the local disk: list, read, write under conditions, delete."""
