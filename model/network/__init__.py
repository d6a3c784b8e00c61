"""PVTv2 as the paper has it, with its variants, cost, shapes and labels."""
