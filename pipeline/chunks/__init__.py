"""The data that travels from step to step: chunks, columns, measurements, the task, the size policy and failures."""
