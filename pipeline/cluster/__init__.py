"""The Ray cluster: joining it, checking its nodes and dividing its processors."""
