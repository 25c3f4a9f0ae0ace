"""Image descriptors that need no trained network: color, layout, texture and edges."""

import cv2
import numpy as np

_SIDE = 128  # Pictures are described at this size: it halves nothing that the descriptors below can see.
_HUES, _LEVELS, _JOINT = 16, 8, 4
_LAYOUT = 4
_DIRECTIONS, _CELLS = 8, 3
_LBP_BINS = 10
WIDTH = (_HUES + 2 * _LEVELS) + _JOINT**3 + 3 * _LAYOUT**2 + 6 + 2 * _LBP_BINS + _DIRECTIONS * _CELLS**2 + 6


def image_features(bgr: np.ndarray) -> np.ndarray:
    """Color, layout, texture and edges of one picture: [WIDTH] float32, always finite.

    Blocks, each of about unit length so that none drowns the rest: histograms of hue, saturation and value, joint
    histogram of Lab (both as square roots: Hellinger distance), Lab means on a 4x4 grid, spread and skew of Lab, local
    binary patterns at two radii (Ojala et al. 2002, rotation-invariant uniform, 8 neighbors), directions of gradients
    on a 3x3 grid (Dalal & Triggs 2005), and six global measures.

    Args:
      bgr: [h, w, 3] uint8 picture of any size.
    """
    height, width = bgr.shape[:2]
    shrinks = height >= _SIDE and width >= _SIDE
    small = cv2.resize(bgr, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
    dx = cv2.Sobel(gray, cv2.CV_32F, 1, 0) / 255
    dy = cv2.Sobel(gray, cv2.CV_32F, 0, 1) / 255
    blocks = (
        _hsv_histograms(cv2.cvtColor(small, cv2.COLOR_BGR2HSV)),
        _lab_histogram(lab),
        *_lab_layout(lab),
        _binary_patterns(gray, 1),
        _binary_patterns(gray, 3),
        _gradient_directions(dx, dy),
        _global_measures(small, gray, dx, dy, width / height),
    )
    return np.concatenate(blocks).astype(np.float32)


def _hsv_histograms(hsv: np.ndarray) -> np.ndarray:
    """[32]: hue (weighted by saturation: gray has none), saturation, value; square roots of shares."""
    hue, saturation, value = (hsv[..., channel].ravel() for channel in range(3))
    hues = np.bincount(hue.astype(np.int64) * _HUES // 180, weights=saturation / 255.0, minlength=_HUES)[:_HUES]
    levels = [np.bincount(part >> 5, minlength=_LEVELS).astype(np.float64) for part in (saturation, value)]
    return np.sqrt(np.concatenate([hues, *levels]) / (3 * hue.size))


def _lab_histogram(lab: np.ndarray) -> np.ndarray:
    """[64]: 4x4x4 bins, square roots of shares. a and b seldom leave the middle half, so the bins lie there."""
    lightness = lab[..., 0].astype(np.int64) >> 6
    a, b = (np.clip((lab[..., channel].astype(np.int64) - 64) >> 5, 0, _JOINT - 1) for channel in (1, 2))
    counts = np.bincount(((lightness * _JOINT + a) * _JOINT + b).ravel(), minlength=_JOINT**3)
    return np.sqrt(counts / lightness.size)


def _lab_layout(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[48] Lab means on a 4x4 grid, and [6] standard deviation and cube root of the third moment a channel."""
    grid = cv2.resize(lab.astype(np.float32), (_LAYOUT, _LAYOUT), interpolation=cv2.INTER_AREA).astype(np.float64)
    levels = np.arange(256.0)
    spread, skew = [], []
    for channel in range(3):
        # By the histogram: 256 levels instead of 16,384 pixels.
        shares = np.bincount(lab[..., channel].ravel(), minlength=256) / lab[..., channel].size
        centered = (levels - shares @ levels) / 128
        spread.append(np.sqrt(shares @ centered**2))
        skew.append(np.cbrt(shares @ centered**3))
    return (grid.ravel() - 128) / (128 * _LAYOUT), np.array(spread + skew)


def _lbp_classes() -> np.ndarray:
    """[256]: class of every pattern: the number of brighter neighbors when they lie together, else 9."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), _LBP_BINS - 1)


_LBP_CLASS = _lbp_classes()
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def _binary_patterns(gray: np.ndarray, radius: int) -> np.ndarray:
    """[10]: shares of the pattern classes, as square roots. A margin of 2 levels keeps noise in flat parts out."""
    smooth = cv2.blur(gray, (radius, radius)) if radius > 1 else gray
    padded = cv2.copyMakeBorder(smooth, radius, radius, radius, radius, cv2.BORDER_REFLECT_101)
    center = cv2.add(smooth, 2)
    code = np.zeros_like(gray)
    for bit, (down, right) in enumerate(_RING):
        top, left = radius * (1 + down), radius * (1 + right)
        neighbor = padded[top : top + _SIDE, left : left + _SIDE]
        code |= (neighbor > center).astype(np.uint8) << bit
    counts = np.bincount(_LBP_CLASS, weights=np.bincount(code.ravel(), minlength=256), minlength=_LBP_BINS)
    return np.sqrt(counts / code.size)


def _gradient_directions(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """[72]: strength of 8 directions (of 180 degrees) in 3x3 cells, each cell at most of unit length, over 3."""
    strength, angle = cv2.cartToPolar(dx, dy)
    direction = np.floor(angle * (_DIRECTIONS / np.pi) + 0.5).astype(np.int64) % _DIRECTIONS
    cell = np.arange(_SIDE) * _CELLS // _SIDE
    bins = (cell[:, None] * _CELLS + cell[None, :]) * _DIRECTIONS + direction
    total = np.bincount(bins.ravel(), weights=strength.ravel(), minlength=_DIRECTIONS * _CELLS**2)
    cells = total.reshape(-1, _DIRECTIONS) / (_SIDE / _CELLS) ** 2
    return (cells / np.sqrt((cells**2).sum(axis=1, keepdims=True) + 1e-2)).ravel() / _CELLS


def _global_measures(small: np.ndarray, gray: np.ndarray, dx: np.ndarray, dy: np.ndarray, aspect: float) -> np.ndarray:
    """[6]: shape, brightness, contrast, colorfulness (Hasler & Suesstrunk 2003), share of edges, sharpness."""
    blue, green, red = (small[..., channel].astype(np.float64) / 255 for channel in range(3))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    colorful = np.hypot(red_green.std(), yellow_blue.std()) + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    laplacian = cv2.Laplacian(gray, cv2.CV_32F).astype(np.float64) / 255
    edges = float((np.hypot(dx, dy) > 0.5).mean())
    shape = np.clip(np.log2(aspect), -3, 3) / 3
    return np.array([shape, gray.mean() / 255, gray.std() / 128, colorful, edges, np.log1p(laplacian.var() * 10) / 3])
