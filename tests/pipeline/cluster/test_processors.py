import pytest

from pipeline.cluster.processors import divide_processors
from pipeline.errors import ConfigError


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 64])
@pytest.mark.parametrize("gpus", [0, 1, 2, 8])
def test_a_reader_a_decoder_and_every_actor_fit_at_once(cpus, gpus):
    try:
        division = divide_processors(cpus, gpus, "auto", None)
    except ConfigError:
        assert 0.2 * gpus > cpus - 1.25  # more GPUs than the CPUs can feed
        return
    busy = division.read_cpus + division.decode_cpus + division.num_actors[1] * division.actor_cpus
    assert busy <= cpus + 1e-3
    assert division.num_actors[0] >= 1
    assert division.device == ("cuda" if gpus else "cpu")


@pytest.mark.parametrize("cpus", [1, 2, 8])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_two_steps_ask_for_the_same_share_so_that_ray_does_not_fuse_them(cpus, device):
    division = divide_processors(cpus, 1, device, None)
    assert len({0.0, division.read_cpus, division.decode_cpus, division.actor_cpus}) == 4


def test_two_cpus_are_divided_as_documented():
    division = divide_processors(2, 0, "auto", None)
    assert (division.read_cpus, division.decode_cpus, division.actor_cpus) == (0.25, 0.5, 0.45)
    assert division.num_actors == (2, 2)


def test_more_actors_than_fit_are_refused_with_how_many_do():
    with pytest.raises(ConfigError, match="at most 2 fit"):
        divide_processors(2, 0, "cpu", (5, 5))


def test_a_range_is_cut_to_what_fits():
    assert divide_processors(2, 0, "cpu", (1, 99)).num_actors == (1, 2)


def test_a_head_alone_that_is_to_do_nothing_is_refused():
    with pytest.raises(ConfigError, match="Ray has no CPUs"):
        divide_processors(0, 0, "auto", None)


def test_what_asks_for_no_processor_keeps_away_from_idle_nodes():
    assert divide_processors(2, 0, "auto", None).nothing == {"num_cpus": 0}
    head_idles = divide_processors(2, 0, "auto", None, ["a1", "b2"])
    assert head_idles.nothing == {"num_cpus": 0, "label_selector": {"ray.io/node-id": "!in(a1,b2)"}}


def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match="no GPU"):
        divide_processors(8, 0, "cuda", None)
