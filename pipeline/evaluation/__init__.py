"""The evaluation of labels: predictions are read back and compared with true labels."""
