"""Pictures of the demo world: palette, shapes and texture go with the topic, everything else is chance.

Gardening and football share their greens and cooking and jazz some warm tones, so color alone is not the answer.
"""

import cv2
import numpy as np

from pipelines.demo_world.words import TOPICS

# Hue (OpenCV: 0 to 179), saturation and value of background and shapes.
PALETTES = {
    "cooking": ((12, 120, 200), (5, 200, 220)),
    "cycling": ((105, 60, 190), (20, 30, 70)),
    "astronomy": ((118, 170, 40), (30, 40, 240)),
    "gardening": ((55, 130, 120), (165, 160, 220)),
    "jazz": ((140, 140, 70), (22, 190, 210)),
    "football": ((58, 170, 130), (0, 5, 240)),
}


def color(rng: np.random.Generator, hsv: tuple[int, int, int]) -> tuple[int, int, int]:
    """A BGR color near `hsv`."""
    near = np.array(hsv) + rng.normal(0, (6, 22, 22))
    near = np.array([near[0] % 180, *np.clip(near[1:], 0, 255)]).astype(np.uint8)
    blue, green, red = cv2.cvtColor(near.reshape(1, 1, 3), cv2.COLOR_HSV2BGR)[0, 0]
    return int(blue), int(green), int(red)


def paint(rng: np.random.Generator, topic: str, width: int, height: int) -> np.ndarray:
    """A picture of a topic: [height, width, 3] uint8, BGR."""
    ground, shape = PALETTES[topic]
    if rng.random() < 0.12:  # not every photographer cares about the palette
        ground = PALETTES[str(rng.choice(TOPICS))][0]
    shade = np.linspace(rng.uniform(0.7, 1.0), rng.uniform(0.9, 1.2), height)[:, None, None]
    image = np.clip(np.ones((height, width, 1)) * shade * color(rng, ground), 0, 255).astype(np.uint8)
    image = np.ascontiguousarray(image)
    _SHAPES[topic](rng, image, shape)
    noise = rng.normal(0, 9 if topic == "gardening" else 5, (height, width, 1))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def point(rng: np.random.Generator, image: np.ndarray) -> tuple[int, int]:
    """A place (x, y) inside the picture."""
    return int(rng.integers(image.shape[1])), int(rng.integers(image.shape[0]))


def _plates(rng: np.random.Generator, image: np.ndarray, hsv: tuple[int, int, int]) -> None:
    for _ in range(int(rng.integers(2, 5))):
        center, radius = point(rng, image), int(rng.integers(20, 48))
        cv2.circle(image, center, radius, (235, 240, 245), -1, cv2.LINE_AA)
        cv2.circle(image, center, radius * 2 // 3, color(rng, hsv), -1, cv2.LINE_AA)


def _wheels(rng: np.random.Generator, image: np.ndarray, hsv: tuple[int, int, int]) -> None:
    height, width = image.shape[:2]
    cv2.rectangle(image, (0, height * 2 // 3), (width, height), color(rng, (20, 20, 110)), -1)
    for _ in range(int(rng.integers(1, 4))):
        (x, _), radius = point(rng, image), int(rng.integers(16, 34))
        y, tint = height * 2 // 3 + int(rng.integers(-12, 12)), color(rng, hsv)
        for wheel in (x, x + int(2.4 * radius)):
            cv2.circle(image, (wheel, y), radius, tint, 3, cv2.LINE_AA)
            for angle in np.arange(0, np.pi, np.pi / 5):
                spoke = (int(radius * np.cos(angle)), int(radius * np.sin(angle)))
                start, end = (wheel - spoke[0], y - spoke[1]), (wheel + spoke[0], y + spoke[1])
                cv2.line(image, start, end, tint, 1, cv2.LINE_AA)
        cv2.line(image, (x, y), (x + radius, y - radius), color(rng, (0, 200, 200)), 3, cv2.LINE_AA)


def _stars(rng: np.random.Generator, image: np.ndarray, hsv: tuple[int, int, int]) -> None:
    for _ in range(int(rng.integers(60, 140))):
        cv2.circle(image, point(rng, image), int(rng.integers(0, 2)), color(rng, hsv), -1, cv2.LINE_AA)
    glow = np.zeros_like(image)
    cv2.circle(glow, point(rng, image), int(rng.integers(15, 35)), color(rng, (150, 150, 220)), -1)
    cv2.add(image, cv2.GaussianBlur(glow, (0, 0), 14), dst=image)


def _leaves(rng: np.random.Generator, image: np.ndarray, hsv: tuple[int, int, int]) -> None:
    for index in range(int(rng.integers(50, 90))):
        tint = color(rng, hsv if index % 6 == 0 else (50, 150, 110))
        axes = (int(rng.integers(8, 18)), int(rng.integers(3, 7)))
        cv2.ellipse(image, point(rng, image), axes, float(rng.uniform(0, 180)), 0, 360, tint, -1, cv2.LINE_AA)


def _strings(rng: np.random.Generator, image: np.ndarray, hsv: tuple[int, int, int]) -> None:
    height, width = image.shape[:2]
    step = int(rng.integers(9, 16))
    for x in range(int(rng.integers(step)), width, step):
        cv2.line(image, (x, 0), (x, height), color(rng, hsv), 2, cv2.LINE_AA)
    spot = np.zeros_like(image)
    cv2.circle(spot, point(rng, image), height // 4, (60, 110, 150), -1)
    cv2.add(image, cv2.GaussianBlur(spot, (0, 0), 18), dst=image)


def _pitch(rng: np.random.Generator, image: np.ndarray, hsv: tuple[int, int, int]) -> None:
    height, width = image.shape[:2]
    band, white = int(rng.integers(18, 34)), color(rng, hsv)
    for y in range(0, height, 2 * band):
        image[y : y + band] = (image[y : y + band] * 0.82).astype(np.uint8)
    x, y = width // 2 + int(rng.integers(-50, 50)), height // 2 + int(rng.integers(-30, 30))
    cv2.line(image, (x, 0), (x, height), white, 3, cv2.LINE_AA)
    cv2.circle(image, (x, y), int(rng.integers(24, 44)), white, 3, cv2.LINE_AA)
    cv2.rectangle(image, (-5, y - 40), (int(rng.integers(30, 60)), y + 40), white, 3)
    cv2.circle(image, point(rng, image), 5, white, -1, cv2.LINE_AA)


_SHAPES = {
    "cooking": _plates,
    "cycling": _wheels,
    "astronomy": _stars,
    "gardening": _leaves,
    "jazz": _strings,
    "football": _pitch,
}


def picture_file(rng: np.random.Generator, topic: str) -> tuple[str, bytes]:
    """A picture of a topic as a file: its ending (jpg or png) and its bytes; 160 to 240 pixels wide."""
    width, height = int(rng.integers(160, 241)), int(rng.integers(140, 201))
    if rng.random() < 0.06:
        image = paint(rng, topic, 120, 100)
        if rng.random() < 0.5:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
        return "png", encode(".png", image)
    return "jpg", encode(".jpg", paint(rng, topic, width, height))


def encode(ending: str, image: np.ndarray) -> bytes:
    """The bytes of a picture file."""
    done, data = cv2.imencode(ending, image, [cv2.IMWRITE_JPEG_QUALITY, 80] if ending == ".jpg" else [])
    if not done:
        raise ValueError(f"opencv cannot write {ending} files here")
    return bytes(data)
