"""Each operation in all its forms: compiled for each instruction set, and in torch's own operations."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from model.cpu import compiled as library

SOURCES = sorted(Path(library.__file__).with_name("c").glob("*.c"))
FLAGS = ("-O2", "-ffp-contract=fast", "-Wno-psabi", "-Wno-unused-function", "-fPIC", "-shared")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Builds a library, from the name of a form, that always uses that form."""
    compiler, folder = shutil.which("cc"), tmp_path_factory.mktemp("kernels")

    def build(form):
        if compiler is None:
            pytest.skip("there is no C compiler")
        target = folder / f"{form}.so"
        if not target.exists():
            subprocess.run([compiler, *FLAGS, f"-DPVTV2_FORM={form}", *SOURCES, "-o", target], check=True)
        return library.load(target)

    return build


@pytest.fixture(
    params=["as installed", pytest.param("avx512", marks=pytest.mark.avx512), "avx2", "plain", "torch"],
)
def kind(request, monkeypatch, built):
    """Sets the form that runs in a test."""
    if request.param == "as installed":
        assert library.is_compiled(), "the package was installed without a C compiler"
    else:
        if request.param == "avx512" and "avx512f" not in Path("/proc/cpuinfo").read_text():
            pytest.skip("this processor has no AVX-512")
        chosen = None if request.param == "torch" else built(request.param)
        monkeypatch.setattr(library, "_library", lambda: chosen)
    return request.param


@pytest.fixture
def tiles(kind):
    """Says whether the form that runs in a test multiplies tiles of bfloat16."""
    return library.tiled(torch.bfloat16, torch.device("cpu")) is not None
