"""The read step: one planned shard becomes chunks of encoded images."""
