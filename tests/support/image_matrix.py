"""Encoded images of every layout that the writers here can make, each with the pixels that a reader must show.

The pixels are computed from the array that was encoded, without a decoder: a sample v becomes v / max * 255, and a
transparent pixel is seen on white. A writer that refuses a layout leaves it out.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

HEIGHT, WIDTH = 37, 53


@dataclass(frozen=True, slots=True)
class Case:
    """One encoded image.

    Attributes:
        name: The layout: format, samples, compression and more, joined by spaces.
        data: Encoded image.
        pixels: RGB values in [0, 255], float64, of shape (HEIGHT, WIDTH, 3).
        tolerance: Largest difference to `pixels` that is right: 1 for rounding, more for a lossy format.
    """

    name: str
    data: bytes
    pixels: npt.NDArray[np.float64]
    tolerance: float = 1.0


def noise(num_samples: int, top: int, dtype: str, seed: int = 7) -> npt.NDArray[np.generic]:
    """Returns samples in [0, top] of shape (HEIGHT, WIDTH, num_samples): noise, a ramp, black and white."""
    rng = np.random.default_rng(seed)
    unit = rng.random((HEIGHT, WIDTH, num_samples))
    unit[: HEIGHT // 3] = np.linspace(0, 1, WIDTH)[:, None]
    unit[0], unit[1] = 0, 1
    values = unit * top if np.dtype(dtype).kind == "f" else np.round(unit * top)
    return np.minimum(values, float(top)).astype(dtype)


def shown(unit: npt.NDArray[np.float64], alpha: str = "", *, cmyk: bool = False) -> npt.NDArray[np.float64]:
    """Returns RGB values in [0, 255] of samples in [0, 1].

    Args:
        unit: Samples of shape (height, width, samples); samples behind the colours are alpha or mean nothing.
        alpha: What the first sample behind the colours is: "unassalpha", "assocalpha", or nothing.
        cmyk: True if the first four samples are inks.
    """
    num = 4 if cmyk else 1 if unit.shape[2] < 3 else 3
    colours, rest = unit[..., :num], unit[..., num:]
    if cmyk:
        colours = (1 - colours[..., :3]) * (1 - colours[..., 3:])
    colours = np.repeat(colours, 3, axis=2) if num == 1 else colours
    if alpha == "assocalpha":
        colours = colours + 1 - rest[..., :1]
    elif alpha == "unassalpha":
        colours = colours * rest[..., :1] + 1 - rest[..., :1]
    return np.round(np.clip(colours, 0, 1) * 255)


_TIFF_TYPES = {
    "u1": 1, "u2": 3, "u4": 15, "u8": 255, "u10": 1023, "u12": 4095, "u14": 16383, "u16": 65535, "u32": 2**32 - 1,
    "u64": 2**63, "f16": 1, "f32": 1, "f64": 1,
}  # fmt: skip
_KINDS = {
    "gray": ("minisblack", 1), "white is zero": ("miniswhite", 1), "rgb": ("rgb", 3), "cmyk": ("separated", 4),
}  # fmt: skip
_ALPHAS = ("", "unspecified", "assocalpha", "unassalpha")
_LAYOUTS = {
    "one strip": {}, "strips": {"rowsperstrip": 7}, "tiles": {"tile": (16, 32)}, "one tile": {"tile": (48, 64)},
}  # fmt: skip


def tiffs() -> Iterator[Case]:
    """Yields TIFFs: samples, photometric, alpha, planes, compression, byte order, strips and tiles."""
    most = ("", "lzw", "lzw 2", "deflate", "deflate 2", "packbits", "zstd", "lzma")
    for depth, kind, alpha, planar in itertools.product(_TIFF_TYPES, _KINDS, _ALPHAS, ("contig", "separate")):
        photometric, colours = _KINDS[kind]
        num = colours + bool(alpha)
        bits = int(depth[1:])
        if planar == "separate" and num == 1:
            continue
        dtype = f"f{bits // 8}" if depth[0] == "f" else f"u{max(1, (1 << (bits - 1).bit_length()) // 8)}"
        values = noise(num, _TIFF_TYPES[depth], dtype)
        if alpha == "assocalpha":
            values[..., :colours] = np.minimum(values[..., :colours], values[..., colours:])
        unit = values.astype(np.float64) / _TIFF_TYPES[depth]
        if kind == "white is zero":
            unit[..., :1] = 1 - unit[..., :1]
            if alpha == "assocalpha":
                continue  # No writer says whether the colour is multiplied before or after it is inverted.
        pixels = shown(unit, alpha, cmyk=kind == "cmyk")
        stored = values[..., 0] if num == 1 else np.moveaxis(values, 2, 0) if planar == "separate" else values
        is_common = depth in ("u8", "u16")
        squeezes, layouts = (most, _LAYOUTS) if is_common else (("", "lzw", "deflate 2"), ("strips", "tiles"))
        for squeeze, order, layout, big in itertools.product(squeezes, "<>", layouts, (False, True)):
            if big and (squeeze or layout != "strips"):
                continue
            codec, _, predictor = squeeze.partition(" ")
            options = dict(_LAYOUTS[layout])
            if bits not in (8, 16, 32, 64):
                options["bitspersample"] = bits
            if predictor:
                options["predictor"] = 3 if depth[0] == "f" else 2
            if alpha:
                options["extrasamples"] = [alpha]
            buffer = io.BytesIO()
            try:
                with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=big) as writer:
                    writer.write(
                        stored, photometric=photometric, planarconfig=planar if num > 1 else None,
                        compression=codec or None, metadata=None, **options,
                    )  # fmt: skip
            except Exception:
                continue
            name = f"tiff {depth} {kind}, {alpha or 'opaque'}, {planar}, {squeeze or 'raw'}, {order}, {layout}"
            # Pillow cuts each sample of 16 bits to eight before it multiplies one by another, or divides.
            tolerance = {"assocalpha": 3.0, "unassalpha": 2.0}.get(alpha, 2.0 if kind == "cmyk" else 1.0)
            tolerance = tolerance if bits == 16 else 1.0
            yield Case(name + ", big" * big, buffer.getvalue(), pixels, tolerance)


def pillow_tiffs() -> Iterator[Case]:
    """Yields TIFFs that Pillow writes: every mode, with every lossless compression of its libtiff."""
    squeezes = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma", "group3", "group4", "tiff_ccitt")
    for mode, squeeze, big in itertools.product(
        ("1", "L", "LA", "P", "I;16", "I;16B", "F", "RGB", "RGBX", "RGBA", "CMYK"), squeezes, (False, True)
    ):
        num = {"LA": 2, "RGB": 3, "RGBX": 4, "RGBA": 4, "CMYK": 4}.get(mode, 1)
        top = {"1": 1, "I;16": 65535, "I;16B": 65535, "F": 1}.get(mode, 255)
        values = noise(num, top, "f4" if mode == "F" else "u2" if top > 255 else "u1")
        pixels = shown(values / top, "unassalpha" if mode in ("LA", "RGBA") else "", cmyk=mode == "CMYK")
        flat = values[..., 0] if num == 1 else values
        if mode == "P":
            image = Image.fromarray(flat).convert("L").convert("P")
        elif mode == "1":
            image = Image.fromarray(flat * 255).convert("1", dither=Image.Dither.NONE)
        else:
            flat = flat.astype(">u2") if mode == "I;16B" else flat
            image = Image.frombytes(mode, (WIDTH, HEIGHT), flat.tobytes())
        buffer = io.BytesIO()
        try:
            image.save(buffer, "TIFF", compression=squeeze, big_tiff=big)
        except Exception:
            continue
        yield Case(f"tiff of Pillow, {mode}, {squeeze or 'raw'}" + ", big" * big, buffer.getvalue(), pixels)


def png(
    color_type: int, bits: int, rows: list[bytes], size: tuple[int, int] = (WIDTH, HEIGHT),
    before: tuple[tuple[bytes, bytes], ...] = (), after: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:  # fmt: skip
    """Returns a PNG of packed rows, with more chunks before and behind its pixels."""
    header = struct.pack(">IIBBBBB", *size, bits, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *before, (b"IDAT", body), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


def chunk(name: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG with its right checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _packed(values: npt.NDArray[np.generic], bits: int) -> list[bytes]:
    rows = values.reshape(values.shape[0], -1)
    if bits == 16:
        return [row.astype(">u2").tobytes() for row in rows]
    unpacked = np.unpackbits(rows.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    return [np.packbits(row.reshape(-1)).tobytes() for row in unpacked]


def pngs() -> Iterator[Case]:
    """Yields PNGs of every colour type and depth, with and without a transparent colour."""
    kinds = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    for color_type, depths in kinds.items():
        for bits, keyed in itertools.product(depths, (False, True)):
            top = (1 << bits) - 1
            num = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
            values = noise(num, top, "u2")
            unit = values / top
            before: list[tuple[bytes, bytes]] = []
            if color_type == 3:
                palette = np.random.default_rng(3).integers(0, 256, (top + 1, 3), np.uint8)
                before.append((b"PLTE", palette.tobytes()))
                unit = palette[values[..., 0]] / 255
            pixels = shown(unit, "unassalpha" if color_type >= 4 else "")
            if keyed and color_type >= 4:
                continue
            if keyed:
                key = values[20, 20].astype(int).tolist()
                if color_type == 3:
                    before.append((b"tRNS", bytes([255] * key[0] + [0])))
                else:
                    before.append((b"tRNS", b"".join(struct.pack(">H", value) for value in key)))
                pixels = np.where((values == values[20, 20]).all(axis=2)[..., None], 255.0, pixels)
            name = f"png type {color_type}, {bits} bits, {'keyed' if keyed else 'plain'}"
            tolerance = 2.0 if color_type >= 4 and bits == 16 else 1.0
            yield Case(name, png(color_type, bits, _packed(values, bits), before=tuple(before)), pixels, tolerance)


def jpeg2000s() -> Iterator[Case]:
    """Yields lossless JPEG 2000 images of 1 to 16 bits."""
    for bits, num, container, reversible in itertools.product(
        (1, 2, 4, 7, 8, 9, 10, 12, 14, 16), (1, 2, 3, 4), ("jp2", "j2k"), (True, False)
    ):
        if bits < 8 and not reversible:
            continue
        values = noise(num, (1 << bits) - 1, "u1" if bits <= 8 else "u2")
        try:
            data = imagecodecs.jpeg2k_encode(
                values[..., 0] if num == 1 else values, level=0, bitspersample=bits, codecformat=container,
                reversible=reversible, mct=None if num == 3 else False,
                colorspace=None,
            )  # fmt: skip
        except Exception:
            continue
        pixels = shown(values / ((1 << bits) - 1), "unassalpha" if num in (2, 4) else "")
        tolerance = 1.0 if reversible else 2.0
        name = f"jpeg 2000 {container}, {bits} bits, {num} components, {'reversible' if reversible else 'irreversible'}"
        yield Case(name, data, pixels, tolerance)


def pnms() -> Iterator[Case]:
    """Yields PBM, PGM, PPM and PFM, as text and as bytes, of several largest values."""
    for top, num, plain in itertools.product((1, 3, 15, 100, 255, 256, 1000, 4095, 65535), (1, 3), (False, True)):
        values = noise(num, top, "u2")
        magic = {(1, True): 2, (3, True): 3, (1, False): 5, (3, False): 6}[num, plain]
        body = (
            " ".join(map(str, values.reshape(-1).tolist())).encode()
            if plain else values.astype(">u2" if top > 255 else "u1").tobytes()
        )  # fmt: skip
        yield Case(
            f"pnm P{magic}, up to {top}", f"P{magic}\n{WIDTH} {HEIGHT}\n{top}\n".encode() + body, shown(values / top)
        )
    bits = noise(1, 1, "u1")
    yield Case("pnm P4", f"P4\n{WIDTH} {HEIGHT}\n".encode() + b"".join(_packed(1 - bits, 1)), shown(bits / 1.0))
    for scale, dtype in (("-1.0", "<f4"), ("1.0", ">f4")):
        values = noise(1, 1, "f4")
        body = values[::-1].astype(dtype).tobytes()
        yield Case(f"pnm Pf, {dtype}", f"Pf\n{WIDTH} {HEIGHT}\n{scale}\n".encode() + body, shown(values.astype(float)))


def lossless_others() -> Iterator[Case]:
    """Yields images of the other formats without loss."""
    for num, alpha in ((1, ""), (3, ""), (4, "unassalpha")):
        values = noise(num, 255, "u1")
        pixels = shown(values / 255, alpha)
        image = Image.fromarray(values[..., 0] if num == 1 else values)
        for name, options in (
            ("WEBP", {"lossless": True, "exact": True}),
            ("BMP", {}),
            ("TIFF", {}),
            ("TGA", {}),
            ("ICO", {"sizes": [(WIDTH, HEIGHT)]}),
            ("QOI", {}),
            ("DDS", {}),
            ("PCX", {}),
        ):
            if name == "BMP" and alpha:
                continue  # The fourth byte of such a BMP means nothing.
            buffer = io.BytesIO()
            try:
                image.save(buffer, name, **options)
            except Exception:
                continue
            yield Case(f"{name.lower()} of Pillow, {num} samples", buffer.getvalue(), pixels)


def smooth(num_samples: int, top: int, dtype: str) -> npt.NDArray[np.generic]:
    """Returns samples in [0, top] that a lossy format keeps: slopes from black to white."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [x / (WIDTH - 1), y / (HEIGHT - 1), (x + y) / (WIDTH + HEIGHT - 2), 1 - x / (WIDTH - 1)]
    return np.round(np.stack(planes[:num_samples], axis=2) * top).astype(dtype)


def lossy() -> Iterator[Case]:
    """Yields JPEGs, AVIFs, JPEG XLs, HEICs and more, of 8 to 16 bits."""
    encoders = {
        "jpeg": lambda values, bits, chroma: imagecodecs.jpeg_encode(
            values, level=99, bitspersample=bits, subsampling=chroma
        ),
        "jpeg lossless": lambda values, bits, _: imagecodecs.jpeg_encode(values, lossless=True, bitspersample=bits),
        "jpeg sof3": lambda values, bits, _: imagecodecs.ljpeg_encode(values, bitspersample=bits),
        "jpeg-ls": lambda values, bits, _: imagecodecs.jpegls_encode(values),
        "jpeg xl": lambda values, bits, _: imagecodecs.jpegxl_encode(values, lossless=True, bitspersample=bits),
        "jpeg xl box": lambda values, bits, _: imagecodecs.jpegxl_encode(
            values, lossless=True, bitspersample=bits, usecontainer=True
        ),
        "jpeg xr": lambda values, bits, _: imagecodecs.jpegxr_encode(values),
        "avif": lambda values, bits, chroma: imagecodecs.avif_encode(
            values, level=100, bitspersample=bits, pixelformat=chroma
        ),
        "heif": lambda values, bits, _: imagecodecs.heif_encode(values, level=100, bitspersample=bits),
        "webp": lambda values, bits, _: imagecodecs.webp_encode(values, lossless=True),
    }
    for (name, encode), bits, num in itertools.product(encoders.items(), (2, 4, 8, 10, 12, 14, 16), (1, 3, 4)):
        if (bits < 8 and name in ("jpeg sof3", "webp", "jpeg-ls", "jpeg xr")) or (
            num == 4 and name.startswith("jpeg") and name[4:5] != " x"
        ):
            continue  # The file states no depth, or the fourth sample is an ink.
        values = smooth(num, (1 << bits) - 1, "u1" if bits <= 8 else "u2")
        try:
            data = encode(values[..., 0] if num == 1 else values, bits, "444" if num > 1 else None)
        except Exception:
            continue
        yield Case(
            f"{name}, {bits} bits, {num} samples",
            bytes(data),
            shown(values / ((1 << bits) - 1), "unassalpha" if num == 4 else ""),
            8,
        )


def all_cases() -> Iterator[Case]:
    """Yields every case."""
    return itertools.chain(tiffs(), pillow_tiffs(), pngs(), jpeg2000s(), pnms(), lossless_others(), lossy())


def tiff_file(order: str, tags: dict[int, tuple[str, tuple[int, ...]]], pixels: bytes) -> bytes:
    """Returns a TIFF written by hand: its header, its pixels at offset 8, its directory.

    Args:
        order: "II" or "MM".
        tags: Tag -> (struct code, values), of the codes B, H and I.
        pixels: What lies at offset 8; an even number of bytes.
    """
    code = {"II": "<", "MM": ">"}[order]
    at = 8 + len(pixels)
    entries, behind, base = b"", b"", at + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{code}{len(values)}{kind}", *values)
        if len(packed) > 4:
            behind, packed = behind + packed, struct.pack(f"{code}I", base + len(behind))
        entries += struct.pack(f"{code}HHI", tag, {"B": 1, "H": 3, "I": 4}[kind], len(values)) + packed.ljust(4, b"\0")
    header = order.encode() + struct.pack(f"{code}HI", 42, at)
    return header + pixels + struct.pack(f"{code}H", len(tags)) + entries + bytes(4) + behind
