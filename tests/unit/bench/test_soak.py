import math
import random
from xml.etree import ElementTree as ET

import pytest

from bench.soak.drawing import draw
from bench.soak.slope import slope


def _walk(seed: int, per_second: float) -> tuple[list[float], list[float]]:
    chance, noise, values = random.Random(seed), 0.0, []
    for second in range(1200):
        noise = 0.9 * noise + chance.gauss(0, 1)
        values.append(1000 + per_second * second + noise)
    return [float(second) for second in range(1200)], values


def test_a_line_without_noise_has_its_slope_and_no_error() -> None:
    found = slope(range(600), [5 + 0.25 * x for x in range(600)], block_seconds=30)
    assert math.isclose(found.estimate, 0.25)
    assert math.isclose(found.upper, 0.25, rel_tol=1e-6)


def test_the_bound_covers_the_true_slope_of_autocorrelated_samples() -> None:
    covered = sum(slope(*_walk(seed, 0.002), block_seconds=60).upper >= 0.002 for seed in range(1000))
    # Nominally 950; about 940 with these correlations, as few blocks make the standard error a little small.
    assert covered >= 920


def test_a_series_that_is_too_short_is_rejected() -> None:
    with pytest.raises(ValueError, match="too few"):
        slope(range(100), range(100), block_seconds=30)


def test_a_drawing_is_valid_xml_of_modest_size_with_every_name() -> None:
    series = {f"process <{n}>": [(float(x), float(x * n)) for x in range(1800)] for n in range(12)}
    text = draw({"memory & more": series, "threads": series})
    assert len(text) < 200_000
    words = "".join(ET.fromstring(text).itertext())  # noqa: S314  # our own drawing
    assert all(name in words for name in series)
