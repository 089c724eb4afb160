# SPDX-License-Identifier: Apache-2.0
"""What happens to images on their way from a camera: each with a strength, applied to files, by Pillow and NumPy."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Change = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def darker(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 - strength * draw.uniform(0.9, 1.0))


def brighter(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    """Exposed for too long: what is light is cut off."""
    levels = np.asarray(image, np.float32) * strength * draw.uniform(0.97, 1.03)
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def veiled(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    """Fog, or light in the lens."""
    levels = np.asarray(image, np.float32)
    return Image.fromarray((255 - (255 - levels) * (1 - strength)).astype(np.uint8))


def flat(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 - strength)


def blurred(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(strength * min(image.size) / 100))


def noisy(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    levels = np.asarray(image, np.float32)
    return Image.fromarray(np.clip(levels + draw.normal(0, strength, levels.shape), 0, 255).astype(np.uint8))


def tinted(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    gains = np.float32([1 + strength * 0.5, 1.0, 1 - strength])
    return Image.fromarray(np.clip(np.asarray(image, np.float32) * gains, 0, 255).astype(np.uint8))


def grey(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    return ImageOps.grayscale(image).convert("RGB")


def recompressed(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=int(strength))
    return Image.open(memory).convert("RGB")


def smaller(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    width, height = (max(int(side / strength), 8) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def inverted(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    return ImageOps.invert(image)


def bordered(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    bar = int(image.height * strength)
    return ImageOps.expand(image, (0, bar, 0, bar), fill=(0, 0, 0))


def far(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    """The same scene from farther away: objects are smaller, more of a surrounding is seen."""
    width, height = image.size
    small = image.resize((int(width / strength), int(height / strength)), Image.Resampling.LANCZOS)
    around = image.filter(ImageFilter.GaussianBlur(min(image.size) / 12))
    around.paste(small, (int(draw.integers(0, width - small.width)), int(draw.integers(0, height - small.height))))
    return around


def harder(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    """A camera's vivid profile: levels stretched around the middle, and cut off."""
    levels = (np.asarray(image, np.float32) - 128) * strength + 128
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def larger(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    """A camera with more pixels."""
    return image.resize((int(image.width * strength), int(image.height * strength)), Image.Resampling.BICUBIC)


def near(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    """A part of the picture in place of the whole: objects are larger in it."""
    width, height = int(image.width / strength), int(image.height / strength)
    left, top = int(draw.integers(0, image.width - width + 1)), int(draw.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def written_as_rgb(image: Image.Image, strength: float, draw: np.random.Generator) -> Image.Image:
    """Given to a writer that expects blue first."""
    return Image.merge("RGB", image.split()[::-1])


def changed(paths: list[Path], folder: Path, changes: Sequence[tuple[Change, float]], seed: int) -> Path:
    """Writes images of another camera, changed in one way after another: JPEG at the quality that they had, near enough."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    quality = next((int(strength) for change, strength in changes if change is recompressed), 92)
    for path in paths:
        image = Image.open(path).convert("RGB")
        for change, strength in changes:
            image = change(image, strength, draw)
        image.save(folder / f"{path.stem}.jpg", quality=quality)
    return folder


def turned(paths: list[Path], folder: Path) -> Path:
    """Stored lying on their side, with nothing that says so."""
    folder.mkdir(parents=True)
    for path in paths:
        Image.open(path).convert("RGB").transpose(Image.Transpose.ROTATE_90).save(
            folder / f"{path.stem}.jpg", quality=92
        )
    return folder


def repeated(paths: list[Path], folder: Path, share: float, seed: int) -> Path:
    """Some pictures again and again, as a camera that froze sends them."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    kept = max(int(len(paths) * (1 - share)), 1)
    for number, path in enumerate(paths):
        source = path if number < kept else paths[int(draw.integers(0, max(kept // 8, 1)))]
        shutil.copy(source, folder / f"{number:03}{path.suffix}")
    return folder


def torn(paths: list[Path], folder: Path, share: float, seed: int) -> Path:
    """Some files end before their end."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    spoiled = set(draw.permutation(len(paths))[: max(int(len(paths) * share), 1)].tolist())
    for number, path in enumerate(paths):
        data = path.read_bytes()
        cut = int(len(data) * draw.uniform(0.3, 0.8)) if number in spoiled else len(data)
        (folder / path.name).write_bytes(data[:cut])
    return folder
