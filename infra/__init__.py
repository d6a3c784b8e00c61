"""Files for running the job on machines, clusters and stores, and the audit of an output."""
