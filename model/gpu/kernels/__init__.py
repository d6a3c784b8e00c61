"""The operations on maps of many sizes as Triton kernels. The import needs triton, a part of CUDA builds of torch."""

from model.gpu.kernels.attention import attention
from model.gpu.kernels.dwconv import dwconv_gelu
from model.gpu.kernels.mean import mean
from model.gpu.kernels.norm import add_norm, norm
from model.gpu.kernels.patches import patches
from model.gpu.kernels.pixels import pixel_patches
from model.gpu.kernels.pool import pooled

__all__ = ["add_norm", "attention", "dwconv_gelu", "mean", "norm", "patches", "pixel_patches", "pooled"]
