"""How good labels are: predictions read back and compared with true labels."""
