"""What travels from step to step: chunks, their columns and measurements, the task, the size policy and failures."""
