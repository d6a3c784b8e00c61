"""The operations on ragged maps as Triton kernels. Importing this needs triton, which CUDA builds of torch bring."""

from model.kernels.gpu.attention import attention
from model.kernels.gpu.dwconv import dwconv_gelu
from model.kernels.gpu.mean import mean
from model.kernels.gpu.norm import add_norm, norm
from model.kernels.gpu.patches import patches
from model.kernels.gpu.pixels import pixel_patches
from model.kernels.gpu.pool import pooled

__all__ = ["add_norm", "attention", "dwconv_gelu", "mean", "norm", "patches", "pixel_patches", "pooled"]
