"""Turning and mirroring pictures: the eight orientations of EXIF 2.32 (tag 274)."""

import numpy as np

# Turned and mirrored in all eight ways it never looks the same.
CORNER = np.arange(6).reshape(2, 3)


def orient(picture: np.ndarray, orientation: int) -> np.ndarray:
    """The picture as it is to be shown, [h, w, ...] (a view); `orientation` is EXIF's, 1 to 8."""
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return picture


def orientation_of(corner: np.ndarray) -> int:
    """The orientation that makes `corner` of CORNER."""
    return next(code for code in range(1, 9) if np.array_equal(orient(CORNER, code), corner))
