"""Fields filled under a mask: linear, smooth, and made of nothing but what exists."""

import numpy as np
import pytest

from emulator.verify.filling import filled

SHAPES = [(8, 16), (33, 64), (13, 25)]


def made(shape, share=0.6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((3, *shape)), rng.random(shape) < share


@pytest.mark.parametrize("shape", SHAPES)
def test_what_exists_stays_and_what_does_not_has_no_part(shape):
    field, exists = made(shape)
    first = filled(np.where(exists, field, np.nan), exists)
    np.testing.assert_array_equal(first[:, exists], field[:, exists])
    np.testing.assert_array_equal(filled(np.where(exists, field, 1e30), exists), first)
    assert np.isfinite(first).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_filling_is_linear_and_has_no_extremes_of_its_own(shape):
    field, exists = made(shape)
    one, two = filled(field, exists), filled(field[::-1], exists)
    np.testing.assert_allclose(filled(2 * field - 3 * field[::-1], exists), 2 * one - 3 * two, rtol=1e-12, atol=1e-12)
    inside = field[:, exists]
    assert (one.max(axis=(1, 2)) <= inside.max(axis=1)).all() and (one.min(axis=(1, 2)) >= inside.min(axis=1)).all()
    np.testing.assert_allclose(filled(np.full_like(field, 7.5), exists), 7.5, rtol=1e-14)


def test_the_fill_of_a_smooth_field_is_smooth():
    latitude, longitude = np.radians(np.linspace(89, -89, 90)), np.radians(np.arange(180) * 2)
    field = np.cos(latitude)[:, None] * np.cos(longitude)
    exists = np.ones(field.shape, bool)
    exists[30:45, 40:70] = False
    steps = np.abs(np.diff(filled(np.where(exists, field, 99.0), exists), axis=1)).max()
    flat = np.abs(np.diff(np.where(exists, field, field[exists].mean()), axis=1)).max()
    assert steps < 2.5 * np.abs(np.diff(field, axis=1)).max() < flat / 4


def test_the_fill_turns_with_the_field():
    field, exists = made((8, 16))
    turned = filled(np.roll(field, 4, axis=-1), np.roll(exists, 4, axis=-1))
    np.testing.assert_allclose(turned, np.roll(filled(field, exists), 4, axis=-1), rtol=1e-12, atol=1e-12)


def test_masks_by_level_whole_ones_and_none():
    field, exists = made((8, 16))
    levels = np.stack([exists, np.ones_like(exists), np.zeros_like(exists)])
    result = filled(field, levels)
    np.testing.assert_array_equal(result[0], filled(field[0], exists))
    np.testing.assert_array_equal(result[1], field[1])
    assert np.isnan(result[2]).all()
    assert filled(field, np.ones_like(exists)) is field
    holed = field.copy()
    holed[0][tuple(np.argwhere(exists)[3])] = np.nan
    assert np.isnan(filled(holed, exists)[0][tuple(np.argwhere(exists)[3])])
