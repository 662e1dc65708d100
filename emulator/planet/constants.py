"""Physical constants, SI. A reference model brings its own; the budgets of its data are computed with those.

Sources: ERA5/IFS documentation CY41R2 part IV chapter 12 (gravity, gas constants, latent heats, Earth's radius);
SPEEDY's values as set in the embedded model (`jcm`), read at run time and stored with its output.
"""

import dataclasses
import json

SECONDS_PER_DAY = 86400.0
OF_THE_SEA = ("sea_water_density", "sea_water_heat_capacity")
SOLAR_CONSTANT = 1361.0  # W m-2, Kopp and Lean (2011)


@dataclasses.dataclass(frozen=True)
class Constants:
    """Constants that enter the budgets. The defaults are ERA5's."""

    gravity: float = 9.80665  # m s-2
    earth_radius: float = 6.371229e6  # m
    gas_constant_dry_air: float = 287.0597  # J kg-1 K-1
    gas_constant_water_vapour: float = 461.5250  # J kg-1 K-1
    heat_capacity_dry_air: float = 1004.709  # J kg-1 K-1, at constant pressure
    heat_capacity_water_vapour: float = 1846.1  # J kg-1 K-1, at constant pressure
    latent_heat_vaporisation: float = 2.5008e6  # J kg-1
    latent_heat_fusion: float = 3.337e5  # J kg-1
    sea_water_density: float = 1026.0  # kg m-3, at the surface (TEOS-10)
    sea_water_heat_capacity: float = 3991.86795711963  # J kg-1 K-1, of potential temperature (TEOS-10's cp0)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"Expected a positive number for the constant {field.name}, got {value!r}")

    def to_json(self) -> str:
        """As text. Those of sea water only where they are not the defaults: stores of an atmosphere stay as they were."""
        values = dataclasses.asdict(self)
        same = [f.name for f in dataclasses.fields(self) if f.name in OF_THE_SEA and values[f.name] == f.default]
        return json.dumps({name: value for name, value in values.items() if name not in same}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Constants":
        """Constants from a store's `constants` attribute. Raises `ValueError` for an unknown name."""
        values = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"Expected constants among {sorted(known)}, got {unknown}")
        return cls(**values)


ERA5 = Constants()
