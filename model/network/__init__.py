"""PVTv2 as the paper describes it, with its variants, cost, shapes and labels."""
