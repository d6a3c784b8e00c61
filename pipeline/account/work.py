"""Work over time: rates of a run and of its parts (docs/use/accounting.md defines them)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work that was done in a period of time.

    Attributes:
        seconds: Length of the period.
        images: Number of records, failed ones included.
        pixels, macs: Pixels and multiply-accumulates of the images that went through the network.
    """

    seconds: float
    images: float
    pixels: float
    macs: float

    def rates(self) -> dict[str, float]:
        """Returns images, megapixels and giga-MACs per second."""
        seconds = max(self.seconds, 1e-9)
        return {
            "images_per_s": round(self.images / seconds, 3),
            "mpix_per_s": round(self.pixels / 1e6 / seconds, 3),
            "gmac_per_s": round(self.macs / 1e9 / seconds, 3),
        }


def utilisation(work: Work, num_devices: int, peak_gflops: float) -> float | None:
    """Returns the network's speed as a share of the devices' measured peak in matrix products; None if unknown.

    A multiply-accumulate counts as two operations. Other operations (norms, activations) are not counted.
    """
    if not (work.seconds > 0 and num_devices and peak_gflops > 0):
        return None
    return 2 * work.macs / 1e9 / work.seconds / num_devices / peak_gflops
