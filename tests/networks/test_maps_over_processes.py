"""Networks on maps, of bands of rows: convolutions, attention in windows and planar waves are those of the whole grid."""

import numpy as np
import pytest
from bands import DOUBLE, HALF, SINGLE, assert_equal_over_processes
from together import together

from emulator.networks.cost import products
from emulator.networks.edges import SPHERE, Edges
from emulator.networks.registry import NetworkError, build
from emulator.networks.signature import Channel, Signature
from emulator.networks.windows import Windows, far, shifted
from emulator.parallel.space import ALONE, Space
from emulator.planet.grid import Grid

NOISE = dict(length_scales=(2000.0,), channels=2)
GRIDS = {
    "gaussian": Grid.gaussian(16, 32),
    "uneven": Grid.gaussian(22, 48),  # 22, 11 and 6 rows
    "poles": Grid.equiangular(17, 32, poles=True),
    "odd": Grid.gaussian(13, 26),  # patches of two cells: 7 x 13, then 4 x 7
    "box": Grid.box(17, 18, (40, 66, -10, 26)),
    "zone": Grid.box(18, 24, (10, 70, 0, 360)),
    # bands of one and two rows: what lies beyond a pole is with another process
    "thin": Grid.equiangular(7, 16, poles=True),
}
LEVELS = [Channel("temperature", "state", n, at) for n, at in enumerate((300.0, 850.0))]
SURFACE = Channel("2m_temperature", "state")
TOLD = Signature((*LEVELS, SURFACE), (LEVELS[1], SURFACE))

UNET = dict(kind="unet", width=6, depth=2)
GATED = dict(kind="attention_unet", width=6, depth=2)
MGNO = dict(kind="mgno", width=6, layers=2, depth=2)
FNO = dict(kind="fno", width=6, blocks=2, modes=(4, 5), padding=3, hidden=8)
FUXI = dict(kind="fuxi", width=8, blocks=3, heads=2, window=2, groups=2)
WIDE = FUXI | dict(
    width=64, blocks=2, window=4
)  # of fewer channels one process itself is further from double precision
WXFORMER = dict(
    kind="wxformer", widths=(16, 32), depths=(2, 1), strides=(2, 2), stencils=(2, 4), far=(3, 2), near=3, head_width=8
)
AURORA = dict(
    kind="aurora", embed_dim=16, depths=(2, 1), up_depths=(1, 2), heads=(2, 4), window=(1, 2, 3), latent_levels=3
)
DEEPER = AURORA | dict(patch=1, window=(3, 30, 50), depths=(2, 1, 1), up_depths=(1, 1, 2), heads=(2, 4, 4))

FEW = [
    ("gaussian", UNET | dict(depth=1, noise=NOISE), DOUBLE),
    ("gaussian", UNET | dict(blocks=2, checkpointing=True), DOUBLE),
    ("uneven", UNET | dict(noise=NOISE, checkpointing=True), DOUBLE),
    ("poles", UNET, DOUBLE),
    ("thin", UNET | dict(depth=1), DOUBLE),
    ("box", UNET, DOUBLE),
    ("uneven", UNET, SINGLE),
    ("uneven", UNET, HALF),
    ("uneven", FUXI | dict(blocks=2, noise=NOISE, checkpointing=True), DOUBLE),
    ("poles", WXFORMER | dict(noise=NOISE, checkpointing=True), DOUBLE),
    ("odd", AURORA | dict(noise=NOISE, checkpointing=True), DOUBLE),
    ("uneven", GATED | dict(norm="instance", noise=NOISE, checkpointing=True), DOUBLE),
    ("uneven", MGNO | dict(noise=NOISE, checkpointing=True, after=1, residual=True), DOUBLE),
    ("poles", FNO | dict(latitude="sphere", noise=NOISE, checkpointing=True), DOUBLE),
]
MANY = {
    "unet": [
        ("poles", UNET | dict(depth=1, blocks=2), DOUBLE),
        ("zone", UNET, DOUBLE),
        ("poles", UNET, SINGLE),
    ],
    "fuxi": [
        ("gaussian", FUXI, DOUBLE),
        ("poles", FUXI, DOUBLE),
        ("box", FUXI | dict(window=3), DOUBLE),
        ("zone", FUXI | dict(noise=NOISE), DOUBLE),
        ("poles", FUXI | dict(window=9), DOUBLE),  # one window for all
        ("gaussian", WIDE, SINGLE),
        ("gaussian", WIDE, HALF),
    ],
    "wxformer": [
        ("gaussian", WXFORMER, DOUBLE),
        ("poles", WXFORMER, DOUBLE),
        ("uneven", WXFORMER | dict(decoder="transposed", spectral_norm=True), DOUBLE),
        ("box", WXFORMER, DOUBLE),
        ("zone", WXFORMER | dict(decoder="transposed", noise=NOISE), DOUBLE),
        ("uneven", WXFORMER, SINGLE),
        ("uneven", WXFORMER, HALF),
    ],
    "aurora": [
        ("odd", AURORA, DOUBLE),
        ("poles", AURORA | dict(window=(3, 4, 6)), DOUBLE),
        ("uneven", DEEPER, DOUBLE),  # one window for all
        ("uneven", AURORA, SINGLE),
        ("odd", AURORA, HALF),
    ],
    "attention_unet": [
        ("uneven", GATED, DOUBLE),
        ("poles", GATED | dict(norm="whole"), DOUBLE),
        ("box", GATED | dict(norm="instance"), DOUBLE),
        ("zone", GATED, DOUBLE),
        ("uneven", GATED | dict(norm="none"), SINGLE),  # with norms one process is further from double precision
    ],
    "mgno": [
        ("gaussian", MGNO, DOUBLE),
        ("poles", MGNO, DOUBLE),
        ("box", MGNO, DOUBLE),
        ("zone", MGNO | dict(after=1), DOUBLE),
        ("uneven", MGNO, SINGLE),
        ("uneven", MGNO, HALF),
    ],
    "fno": [
        ("uneven", FNO, DOUBLE),
        ("gaussian", FNO | dict(latitude="periodic"), DOUBLE),
        ("gaussian", FNO | dict(latitude="sphere", modes=(4, 4)), DOUBLE),
        ("gaussian", FNO | dict(padding=12), DOUBLE),  # a process of zeros alone
        ("poles", FNO, SINGLE),
    ],
}


def cases(chosen):
    told = {"aurora": (TOLD,)}
    return [(config, GRIDS[grid], dtype, *told.get(config["kind"], ())) for grid, config, dtype in chosen]


def test_outputs_and_gradients_are_those_of_one_process():
    assert_equal_over_processes(2, cases(FEW))


@pytest.mark.slow
def test_outputs_and_gradients_of_four_processes_are_those_of_one():
    assert_equal_over_processes(4, cases(FEW))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("kind", MANY)
def test_outputs_and_gradients_of_all_designs_are_those_of_one_process(kind, size):
    """Bands whose rows are not those of any window, and processes without a window or a row of the grid."""
    assert_equal_over_processes(size, cases(MANY[kind]))


def counted(space):
    network = build(UNET, 3, 2, GRIDS["gaussian"], space)
    return products(network, 3, (len(range(*space.band(16).indices(16))), 32))


def test_products_of_bands_are_counted():
    whole, parts = counted(ALONE), together(2, counted)
    assert all(0.4 * whole < part < 0.7 * whole for part in parts)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize(
    "cut",
    [
        lambda space: shifted((12, 24), 4, SPHERE, space)[0],
        lambda space: shifted((12, 24), 4, SPHERE, space)[1],
        lambda space: shifted((13, 11), 4, Edges(round=False, open=True), space)[1],
        lambda space: Windows((12, 24), far(12, 5), far(24, 4, False), space),
    ],
    ids=["plain", "moved", "region", "far"],
)
def test_every_process_has_whole_windows_and_about_as_many_cells(cut, size):
    whole, all_parts = cut(ALONE), [cut(Space.imagined(size, rank)) for rank in range(size)]
    cells = all_parts[0].cells
    np.testing.assert_array_equal(np.concatenate(cells), whole.cells[0])
    largest = max(len(part.cells) if part.pole else part.rows * part.columns for part in whole.parts)
    for part, own in zip(all_parts, cells, strict=True):
        assert sum(part.sizes) == len(own)
        for taken, windows in zip(part.sizes, part.parts, strict=True):
            assert taken in (0, len(windows.cells)) if windows.pole else taken % (windows.rows * windows.columns) == 0
        assert abs(len(own) - len(whole.cells[0]) / size) <= largest


REFUSED = [
    (UNET, 4, "a row for each of 4 processes after 2 halvings of 12 rows, got 3"),
    (GATED | dict(dropout=0.1), 2, "no dropout for states that several processes hold together"),
    (FUXI, 4, "patches in a row for each of 4 processes, got 3 of 4 rows each"),
    (WXFORMER | dict(near=2), 4, "patches in a row for each of 4 processes, got 3 of 4 rows each"),
    (FNO | dict(modes=(4, 3)), 4, "waves along longitude for each of 4 processes, got modes 3"),
    (AURORA, 4, "patches in a row for each of 4 processes in the last stage, got 3"),
]


@pytest.mark.parametrize(("config", "size", "message"), REFUSED, ids=[config["kind"] for config, *_ in REFUSED])
def test_what_processes_cannot_share_is_refused(config, size, message):
    with pytest.raises(NetworkError, match=message):
        build(config, 3, 2, Grid.gaussian(12), Space.imagined(size))
