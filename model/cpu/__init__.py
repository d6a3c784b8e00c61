"""The packed forward pass on CPUs, in compiled code where the processor has it and in torch elsewhere."""
