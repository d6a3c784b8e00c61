"""The right of one run to write an output: the lease, its record in the store, and the fence before each write."""
