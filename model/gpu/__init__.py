"""The forward pass of packs on GPUs: tables of fixed shapes, captured graphs and Triton kernels."""
