"""Objects by URI, on object stores and on the local disk: list, read, write under conditions, delete."""
