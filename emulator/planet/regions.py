"""Regions of WeatherBench 2 as exact area weights."""

import dataclasses

import numpy as np

from emulator.planet.frame import cells_to_border
from emulator.planet.grid import Grid


@dataclasses.dataclass(frozen=True)
class Region:
    """A union of boxes (south, north, west, east) in degrees; `west` may exceed `east` across the date line or Greenwich.

    Attributes:
      boxes: tuple of (south, north, west, east); longitudes within -180 to 360.
      land: whether the weights are multiplied by the land-sea mask.
    """

    boxes: tuple[tuple[float, float, float, float], ...]
    land: bool = False

    def contains(self, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        """Whether cell centres, degrees, lie in the region; boolean, of the shape of `latitude`."""
        inside = np.zeros(np.shape(latitude), bool)
        for south, north, west, east in self.boxes:
            around = (
                True if east - west >= 360 else (longitude - west) % 360 <= (east - west) % 360
            )  # modulo: boxes may cross Greenwich or the date line
            inside |= (latitude >= south) & (latitude <= north) & around
        return inside


def _band(south, north):
    return (south, north, 0.0, 360.0)


_BOXES = {
    "global": Region((_band(-90, 90),)),
    "domain": Region((_band(-90, 90),)),  # what is called global on a globe
    "tropics": Region((_band(-20, 20),)),
    "extra-tropics": Region((_band(20, 90), _band(-90, -20))),
    "northern-hemisphere": Region((_band(20, 90),)),
    "southern-hemisphere": Region((_band(-90, -20),)),
    "europe": Region(((35, 75, -12.5, 42.5),)),
    "north-america": Region(((25, 60, -120, -75),)),
    "north-atlantic": Region(((25, 65, -70, -10),)),
    "north-pacific": Region(((25, 60, 145, -130),)),
    "east-asia": Region(((25, 60, 102.5, 150),)),
    "ausnz": Region(((-45, -12.5, 120, 175),)),
    "arctic": Region((_band(60, 90),)),
    "antarctic": Region((_band(-90, -60),)),
}

REGIONS: dict[str, Region] = _BOXES | {
    f"{name}-land": dataclasses.replace(region, land=True) for name, region in _BOXES.items()
}
BY_DISTANCE = ("interior", "near-boundary", "centre")  # of a box or a map: how far from its sides
NEAR, CENTRE = 1 / 8, 1 / 4  # shares of the interior's shorter side: near the boundary up to, in the centre from
DEFAULT_REGIONS = ("global", "northern-hemisphere", "tropics", "southern-hemisphere")


def regions_of(grid: Grid, names=None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The regions to look at on a grid, by name, and those of the names that have no cell on it.

    On a globe the names, by default `DEFAULT_REGIONS`. On a regional grid "global" is called "domain", the default, and
    regions are what of them lies in the domain. Raises `ValueError` for an unknown name, and where none has a cell.
    """
    if grid.is_global():
        return tuple(names or DEFAULT_REGIONS), ()
    asked = dict.fromkeys("domain" if name == "global" else name for name in names or ("domain",))
    place = grid.mesh()
    found = tuple(name for name in asked if _is_by_distance(name, grid) or _region(name).contains(*place).any())
    if not found:
        raise ValueError(f"Expected a region with cells on {grid.describe()}, got none in {', '.join(asked)}")
    return found, tuple(name for name in asked if name not in found)


def _is_by_distance(name: str, grid: Grid) -> bool:
    """Whether a region is one by the distance to a limited area's sides. Raises `ValueError` for one of points."""
    if name not in BY_DISTANCE:
        return False
    if grid.is_global() or grid.is_points:
        raise ValueError(f"Expected a box or a map, which have sides, for the region {name!r}, got {grid.describe()}")
    return True


def by_distance(name: str, grid: Grid, prescribed: int = 0) -> np.ndarray:
    """Cells of a limited area by their distance to its sides, of the grid's shape, bool; none that is `prescribed` wide.

    "interior": all others; "near-boundary": the outermost, over `NEAR` of the interior's shorter side, at least one row;
    "centre": those farther in than `CENTRE` of it.
    """
    inside = cells_to_border(grid) - prescribed
    side = 2 * int(inside.max()) + 1
    if name == "interior":
        return inside >= 0
    if name == "near-boundary":
        return (inside >= 0) & (inside < max(1, round(NEAR * side)))
    return inside >= max(1, round(CENTRE * side))


def _region(name: str) -> Region:
    if name not in REGIONS:
        raise ValueError(f"Expected regions among {', '.join((*REGIONS, *BY_DISTANCE))}, got {name!r}")
    return REGIONS[name]


def region_weights(grid: Grid, names, land_sea_mask: np.ndarray | None = None, prescribed: int = 0) -> np.ndarray:
    """Area weights of each named region, `(region, *grid.shape)`, float64, each summing to 1.

    `prescribed`: width in cells of a frame that no region by distance counts, since forecasts are given it.
    A cell belongs to a region when its centre does. `land_sea_mask` is the land fraction, `grid.shape`, needed by the
    `-land` regions. Raises `ValueError` for an unknown name, a region without cells, or a missing mask.
    """
    latitude, longitude = grid.mesh()
    weights = np.empty((len(names), *grid.shape))
    for row, name in enumerate(names):
        if _is_by_distance(name, grid):
            weight, land = grid.area * by_distance(name, grid, prescribed), False
        else:
            region = _region(name)
            weight, land = grid.area * region.contains(latitude, longitude), region.land
        if land:
            if land_sea_mask is None:
                raise ValueError(f"Expected a land_sea_mask in the truth store for the region {name!r}, got none")
            weight = weight * np.nan_to_num(np.clip(land_sea_mask, 0, 1))
        if not weight.sum() > 0:
            raise ValueError(f"Expected cells in the region {name!r}, got none on a grid of {grid.describe()}")
        weights[row] = weight / weight.sum()
    return weights
