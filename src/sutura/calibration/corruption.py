"""Seven of the corruptions of CIFAR-10-C at its five severities (Hendrycks and Dietterich, ICLR 2019).

Images are float32 in [0, 1], batch first, rows and columns last, one or three channels before them. The other
corruptions of the set need image tools (motion blur, JPEG) or pictures (frost) and are left out. Random ones
repeat by seed; the set's own 8-bit rounding is not applied.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from sutura.calibration.shift import Shift

Images = Float32[np.ndarray, "batch channels height width"]
Corrupt = Callable[[Images, float, np.random.Generator], np.ndarray]


def gaussian_noise(images: Images, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Normal noise of the standard deviation `scale`."""
    return images + rng.normal(scale=scale, size=images.shape)


def shot_noise(images: Images, photons: float, rng: np.random.Generator) -> np.ndarray:
    """Poisson noise of `photons` at full brightness."""
    return rng.poisson(images * photons) / photons


def impulse_noise(images: Images, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the numbers set to 0 or 1, either as likely."""
    hit, salt = rng.random(images.shape) < share, rng.random(images.shape) < 0.5
    return np.where(hit, salt.astype(np.float32), images)


def speckle_noise(images: Images, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Normal noise in proportion to the brightness."""
    return images * (1 + rng.normal(scale=scale, size=images.shape))


def gaussian_blur(images: Images, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian of `sigma` pixels along rows and columns; beyond the edge the nearest pixel."""
    return ndimage.gaussian_filter(images, sigma=sigma, axes=(-2, -1), mode="nearest")


def contrast(images: Images, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Each channel drawn towards its mean."""
    means = images.mean(axis=(-2, -1), keepdims=True)
    return (images - means) * np.float32(factor) + means


def brightness(images: Images, more: float, rng: np.random.Generator) -> np.ndarray:
    """The value of hue, saturation and value raised: the largest channel grows, the others in proportion."""
    value = images.max(axis=1, keepdims=True)
    raised = np.clip(value + np.float32(more), 0, 1)
    return np.where(value > 0, images * (raised / np.where(value > 0, value, 1)), raised)


def _seeded(corrupt: Corrupt) -> Callable[[np.ndarray, float, int], np.ndarray]:
    def perturb(images: np.ndarray, strength: float, seed: int) -> np.ndarray:
        changed = corrupt(images, strength, np.random.default_rng(seed))
        return np.clip(changed, 0, 1).astype(np.float32)

    return perturb


CORRUPTIONS = (
    Shift("gaussian noise", (0.04, 0.06, 0.08, 0.09, 0.10), _seeded(gaussian_noise)),
    Shift("shot noise", (500, 250, 100, 75, 50), _seeded(shot_noise)),
    Shift("impulse noise", (0.01, 0.02, 0.03, 0.05, 0.07), _seeded(impulse_noise)),
    Shift("speckle noise", (0.06, 0.1, 0.12, 0.16, 0.2), _seeded(speckle_noise)),
    Shift("gaussian blur", (0.4, 0.6, 0.7, 0.8, 1.0), _seeded(gaussian_blur)),
    Shift("contrast", (0.75, 0.5, 0.4, 0.3, 0.15), _seeded(contrast)),
    Shift("brightness", (0.05, 0.1, 0.15, 0.2, 0.3), _seeded(brightness)),
)
