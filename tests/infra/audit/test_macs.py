"""The audit's formula and the job's, which share no code, give the same multiply-accumulates."""

from dataclasses import asdict, replace

import pytest

from infra.audit.macs import reckon_macs
from model.network.config import VARIANTS
from model.network.cost import count_macs

SIZES = [(32, 32), (224, 224), (33, 65), (31, 29), (97, 640), (1000, 37), (2048, 2048), (511, 1)]


@pytest.mark.parametrize("classes", [0, 7, 1000])
@pytest.mark.parametrize("name", VARIANTS)
def test_macs_are_those_that_the_job_counts(name, classes):
    config = replace(VARIANTS[name], num_classes=classes)
    for size in SIZES:
        assert reckon_macs(asdict(config), *size) == count_macs(config, *size), size


def test_b2_at_224_px_has_the_published_macs():
    assert round(reckon_macs(asdict(VARIANTS["b2"]), 224, 224) / 1e9, 2) == 4.03
