"""The forward pass of packs on CPUs: in compiled code where that is installed, else in torch's own operations."""
