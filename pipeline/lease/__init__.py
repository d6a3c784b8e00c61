"""Who may write into an output: the lease, its record in the store, and the fence before each write."""
