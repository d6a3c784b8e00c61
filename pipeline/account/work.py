"""Work over time: the rates of a run, each over a time of its own (docs/use/accounting.md defines them)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Work:
    """What was done in some time.

    Attributes:
        images: listed records; failed ones are among them.
        pixels, macs: of images that went through the network.
    """

    seconds: float
    images: float
    pixels: float
    macs: float

    def rates(self) -> dict[str, float]:
        """Images, megapixels and giga-MACs a second."""
        seconds = max(self.seconds, 1e-9)
        return {
            "images_per_s": round(self.images / seconds, 3),
            "mpix_per_s": round(self.pixels / 1e6 / seconds, 3),
            "gmac_per_s": round(self.macs / 1e9 / seconds, 3),
        }


def utilisation(work: Work, num_devices: int, peak_gflops: float) -> float | None:
    """The share of a device's measured matrix peak that the network's multiply-accumulates came to; None if unknown.

    A multiply-accumulate is two operations. What is no multiply-accumulate (norms, activations) counts for nothing.
    """
    if not (work.seconds > 0 and num_devices and peak_gflops > 0):
        return None
    return 2 * work.macs / 1e9 / work.seconds / num_devices / peak_gflops
