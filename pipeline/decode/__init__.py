"""The decode step: encoded bytes become RGB pixels at native size, or a failed record."""
