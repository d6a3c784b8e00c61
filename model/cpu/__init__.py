"""The forward pass of packs on CPUs: in compiled code if that code is installed, else in torch's own operations."""
