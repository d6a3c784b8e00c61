"""PVTv2 for inference: network, checkpoints, cost. It needs torch and safetensors, and knows nothing of pipelines."""
