"""The labelled data set of an output: policy, corrections, changes, drift and exports."""
