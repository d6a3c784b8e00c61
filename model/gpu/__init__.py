"""The packed forward pass on GPUs: tables of fixed shapes, captured graphs and Triton kernels."""
