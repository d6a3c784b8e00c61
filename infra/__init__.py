"""What stands beside the job: notes on machines and stores, and the audit of what a job wrote."""
