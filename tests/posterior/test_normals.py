"""Standard normals by place: published words, moments, independence, the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bprune_hpc import compiled
from bprune_hpc.posterior import normals
from bprune_hpc.posterior.normals import Words, key_of, normals_at, normals_of, threefry

N = 400_000
PI = (
    0x243F6A88,
    0x85A308D3,
    0x13198A2E,
    0x03707344,
    0xA4093822,
    0x299F31D0,
    0x082EFA98,
    0xEC4E6C89,
)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0,) * 4, (0,) * 4, "531c7e4f 39491ee5 2c855a92 3d6abf9a"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 4, "c4189358 1c9cc83a d5881c67 6a0a89e0"),
        (PI[:4], PI[4:], "4aa71d8f 734738c2 431fc6a8 ae6debf1"),
    ],
)
def test_words_are_those_that_the_authors_of_the_generator_publish(
    counter: tuple[int, ...], key: tuple[int, ...], words: str
) -> None:
    four = np.array(key, np.uint32)
    parity = np.bitwise_xor.reduce(four) ^ np.uint32(0x1BD11BDA)
    found = threefry(np.append(four, parity), [np.array([word], np.uint32) for word in counter])
    assert " ".join(f"{int(word[0]):08x}" for word in found) == words


def test_normals_are_box_and_mullers_of_the_words() -> None:
    key, places = key_of("kernel"), np.arange(8, dtype=np.int32)
    found = normals_at(key, 5, range(100, 400), places)
    position, four = np.arange(100, 400, dtype=np.uint32)[None], np.arange(2, dtype=np.uint32)
    words = threefry(
        key, [position, four[:, None], np.full(1, 5, np.uint32), np.zeros(1, np.uint32)]
    )
    for start in (0, 2):
        a, b = words[start].astype(float), words[start + 1].view(np.int32).astype(float)
        radius = np.sqrt(-2 * np.log((a // 2 + 0.5) / 2**31)) * np.where(a % 2, -1, 1)
        for at, of_angle in ((start, np.cos), (start + 1, np.sin)):
            wanted = radius * of_angle(b / 2**31 * np.pi / 2)
            np.testing.assert_allclose(found[at::4], wanted, rtol=2e-6, atol=1e-6)


def test_bits_are_the_same_with_any_instructions_and_with_numpy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, places = key_of(3, "kernel"), np.array([0, 1, 2, 5, 63, 64, 1026], np.int32)
    found = {}
    for name in (*compiled.supported(), compiled.NONE):
        monkeypatch.setenv(compiled.VARIABLE, name)
        found[name] = (
            normals_at(key, 9, range(2**31 - 70, 2**31 + 99), places),
            normals_of(key, 9, 12, 100_003),
        )
    plain = found[compiled.NONE]
    assert len(found) > 1 or compiled.missing
    for of_name in found.values():
        for mine, wanted in zip(of_name, plain, strict=True):
            np.testing.assert_array_equal(mine.view(np.int32), wanted.view(np.int32))


def test_a_normal_does_not_depend_on_what_is_made_beside_it() -> None:
    key, all_places = key_of("kernel"), np.arange(300, dtype=np.int32)
    together = normals_at(key, 3, range(1000), all_places)
    for places, positions in (([7], range(5, 6)), ([2, 3, 99], range(64, 300))):
        alone = normals_at(key, 3, positions, np.array(places, np.int32))
        np.testing.assert_array_equal(alone, together[places][:, positions.start : positions.stop])
    np.testing.assert_array_equal(normals_of(key, 3, 8, 300), together[:, 8])
    np.testing.assert_array_equal(normals_of(key, 3, 8, 7), together[:7, 8])


def _sets() -> dict[str, np.ndarray]:
    """Normals along places, along positions, along replicates, and along keys."""
    key, some, n_each = key_of(0, "kernel"), np.arange(4, dtype=np.int32), N // 4
    return {
        "places": normals_of(key, 0, 0, N),
        "positions": normals_at(key, 0, range(n_each), some).T.ravel(),
        "replicates": np.concatenate([normals_of(key, k, 1, 400) for k in range(1000)]),
        "keys": np.concatenate([normals_of(key_of(k, "x"), 0, 0, 400) for k in range(1000)]),
    }


@pytest.mark.parametrize("along", ["places", "positions", "replicates", "keys"])
def test_moments_and_distribution_are_those_of_a_standard_normal(along: str) -> None:
    z = _sets()[along].astype(float)
    for power, (moment, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], 1):
        assert abs((z**power).mean() - moment) < 4.5 * np.sqrt(variance / len(z))
    assert stats.kstest(z, "norm").pvalue > 1e-4
    beyond = np.array([(np.abs(z) > limit).mean() for limit in (2, 3, 4)])
    wanted = 2 * stats.norm.sf([2, 3, 4])
    assert (np.abs(beyond - wanted) < 4.5 * np.sqrt(wanted / len(z))).all()


def test_neighbours_are_independent() -> None:
    def strength(a: np.ndarray, b: np.ndarray) -> float:
        """Largest correlation of normals, of their sizes and of one with the other's square."""
        a, b = a.ravel().astype(float), b.ravel().astype(float)
        pairs = ((a, b), (a**2 - 1, b**2 - 1), (a, b**2 - 1), (a**2 - 1, b))
        return max(abs(float(np.corrcoef(*pair)[0, 1])) for pair in pairs) * np.sqrt(len(a))

    key, places = key_of(0, "kernel"), np.arange(64, dtype=np.int32)
    of_positions = normals_at(key, 0, range(4001), places)
    found = [strength(of_positions[:, 1:], of_positions[:, :-1])]
    found += [strength(of_positions[lag:], of_positions[:-lag]) for lag in (1, 2, 3, 4, 5)]
    found.append(strength(of_positions, normals_at(key, 1, range(4001), places)))
    for other in (key_of(1, "kernel"), key_of(0, "kernel_1"), key ^ np.uint32(1)):
        four = other[:4]
        other = np.append(four, np.bitwise_xor.reduce(four) ^ np.uint32(0x1BD11BDA))
        found.append(strength(of_positions, normals_at(other, 0, range(4001), places)))
    assert max(found) < 4.5


def test_a_key_is_of_all_that_names_it() -> None:
    keys: list[Words] = [key_of(*parts) for parts in ((0, "a"), (1, "a"), (0, "b"), ("x", 0, "a"))]
    assert len({key.tobytes() for key in keys}) == len(keys)
    assert all(key.dtype == np.uint32 and key.shape == (5,) for key in keys)
    assert normals._N_ROUNDS == 13
