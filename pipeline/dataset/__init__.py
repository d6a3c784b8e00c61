"""The labelled data set beside the rows: policy, corrections, changes, drift and exports."""
