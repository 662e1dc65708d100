"""Energy of the atmosphere, in the two published forms.

With `h = cp T + L q + s q T + K` per kilogram and column bottom and top at geopotentials Phi_s and Phi_top,

    hydrostatic (CREDIT; Sha et al. 2025):  H = I(cp(q) T + L q + Phi_s + (u^2 + v^2) / 2)
    total (ACE2; Watt-Meyer et al. 2024):   H = I(cv T + L q + g z), z from the hypsometric equation, no kinetic energy

The second integrates by parts: with hydrostatic balance `d(Phi) = -R(q) T dp / p`, `R(q) = R_d + (R_v - R_d) q`, the
geopotential's integral is
`Phi_s (ps - p_top) - (Phi_top - Phi_s) p_top + sum R(q) T dp`, so the second is the first with `s = R_v - R_d`,
`K = 0` and a term at the top, which vanishes where the levels reach to zero pressure.
"""

import dataclasses

import torch
from torch import Tensor

from emulator.conservation import amounts, fluxes
from emulator.conservation.atmosphere import Atmosphere, State
from emulator.conservation.budgets import Anchor, left

FORMS = ("hydrostatic", "total")
HEAT_CAPACITIES = ("constant", "moist")


class _TopTerm:
    """What the total form of an `Energy` has at the top, where the levels end below zero pressure."""

    @property
    def has_top(self) -> bool:
        """Whether the levels end below zero pressure, where the total form has a term at the top."""
        levels = self.atmosphere.levels
        return self.form == "total" and (levels.half_a[0] > 0 or levels.half_b[0] > 0)

    def _logarithms(self, state: State) -> tuple[Tensor, Tensor]:
        """Interface pressures and the logarithm of the ratio across every layer."""
        half = self.atmosphere.interfaces(state["surface_pressure"], state["temperature"])
        return half, torch.log(half[:, 1:] / half[:, :-1])

    def _virtual(self, state: State) -> Tensor:
        """Gas constant times virtual temperature, J kg-1: `(batch, level, *space)`."""
        return state["temperature"] * self._gas(state)

    def _gas(self, state: State) -> Tensor:
        """Gas constant of moist air, J kg-1 K-1: `(batch, level, *space)`."""
        return self.atmosphere.constants.gas_constant_dry_air + self.moist * state[fluxes.HUMIDITY]

    def _top_work(self, state: State) -> Tensor:
        """`(Phi_top - Phi_s) p_top / g`, J m-2: `(batch, *space)`; Phi_s goes with the column's own mass."""
        half, logarithms = self._logarithms(state)
        return (self._virtual(state) * logarithms).sum(1) * half[:, 0] / self.atmosphere.constants.gravity

    def _add_top_gradient(self, state: State, result: dict) -> None:
        """Take the derivatives of `_top_work` by humidity and surface pressure from those of the rest."""
        air, virtual = self.atmosphere, self._virtual(state)
        half, logarithms = self._logarithms(state)
        share = self._top_share(state)
        result[fluxes.HUMIDITY] = result[fluxes.HUMIDITY] - share * self.moist * state["temperature"]
        growth = air.interface_growth(state["surface_pressure"], half)
        relative = growth / half
        moved = (virtual * (relative[:, 1:] - relative[:, :-1])).sum(1) * half[:, 0]
        moved = moved + (virtual * logarithms).sum(1) * growth[:, 0]
        result["surface_pressure"] = result["surface_pressure"] - moved / air.constants.gravity

    def _top_share(self, state: State) -> Tensor:
        """`p_top log(p_below / p_above) / dp` of every layer, 1: `(batch, level, *space)`."""
        half, logarithms = self._logarithms(state)
        thickness = half[:, 1:] - half[:, :-1]
        # The limit of log(p_below / p_above) / dp for a layer that vanishes is 1 / p.
        thin = thickness <= 0
        return torch.where(thin, 1 / half[:, 1:], logarithms / thickness.masked_fill(thin, 1.0)) * half[:, :1]


@dataclasses.dataclass(frozen=True, eq=False)
class Energy(_TopTerm):
    """Energy, `<H1> - <H0> = dt <F_top - F_sfc>`, J m-2, both fluxes net downward.

    Attributes:
      form: "hydrostatic" or "total".
      heat_capacity: "constant", or "moist" for `cp = (1 - q) cp_d + q cp_v` (hydrostatic form alone).
      kinetic: whether the hydrostatic form counts the winds.
      top, surface: names of the fluxes whose sums are net downward at the top and at the surface.
      snow: whether falling snow hands its latent heat of fusion to the atmosphere.
      heating: constant unaccounted heating of the data, W m-2.
    """

    atmosphere: Atmosphere
    form: str = "hydrostatic"
    heat_capacity: str = "constant"
    kinetic: bool = True
    top: tuple[str, ...] = fluxes.TOP_FLUXES
    surface: tuple[str, ...] = fluxes.SURFACE_FLUXES
    snow: bool = False
    heating: float = 0.0
    name = "energy"
    units = "J m-2"

    def __post_init__(self):
        if self.form not in FORMS:
            raise ValueError(f"Expected the form of energy among {FORMS}, got {self.form!r}")
        if self.heat_capacity not in HEAT_CAPACITIES:
            raise ValueError(f"Expected the heat capacity among {HEAT_CAPACITIES}, got {self.heat_capacity!r}")
        if self.form == "total" and self.heat_capacity == "moist":
            raise ValueError("Expected a constant heat capacity with the total form, whose published cv is constant")
        if self.form == "total" and not self.atmosphere.has_surface_pressure:
            raise ValueError("Expected surface_pressure among the variables: the total form integrates heights from it")

    @property
    def winds(self) -> tuple[str, ...]:
        return ("u_component_of_wind", "v_component_of_wind") if self.kinetic and self.form == "hydrostatic" else ()

    @property
    def required(self) -> tuple[str, ...]:
        pressure = ("surface_pressure",) if self.atmosphere.has_surface_pressure else ()
        snow = (fluxes.SNOWFALL,) if self.snow else ()
        return ("temperature", fluxes.HUMIDITY, *self.winds, *pressure, *self.top, *self.surface, *snow)

    @property
    def moist(self) -> float:
        """Coefficient s of `q T` in the energy per kilogram, J kg-1 K-1."""
        constants = self.atmosphere.constants
        if self.form == "total":
            return constants.gas_constant_water_vapour - constants.gas_constant_dry_air
        if self.heat_capacity == "moist":
            return constants.heat_capacity_water_vapour - constants.heat_capacity_dry_air
        return 0.0

    def prepare(self, state0: State, state1: State) -> tuple[State, State]:
        """The states with what every evaluation of one step shares: the kinetic energy, and the content of the start."""
        state0, state1 = amounts.StepState(state0), amounts.StepState(state1)
        if self.winds:
            for state in (state0, state1):
                state.formed["kinetic_energy"] = (self.winds, self.kinetic_energy(state))
        of = ("temperature", fluxes.HUMIDITY, *self.winds)
        state0.formed["content"] = (of, self.content(state0))
        return state0, state1

    def kinetic_energy(self, state: State) -> Tensor:
        """Kinetic energy of the horizontal wind, J kg-1: `(batch, level, *space)`."""
        if (kept := amounts.formed(state, "kinetic_energy")) is not None:
            return kept
        east, north = (state[wind] for wind in self.winds)
        return torch.addcmul(east * east, north, north) / 2

    def content(self, state: State) -> Tensor:
        """Energy per kilogram without the surface geopotential, J kg-1: `(batch, level, *space)`."""
        if (kept := amounts.formed(state, "content")) is not None:
            return kept
        constants = self.atmosphere.constants
        temperature, humidity = state["temperature"], state[fluxes.HUMIDITY]
        result = torch.add(
            constants.heat_capacity_dry_air * temperature, humidity, alpha=constants.latent_heat_vaporisation
        )
        if self.moist:
            result = torch.addcmul(result, temperature, humidity, value=self.moist)
        return result + self.kinetic_energy(state) if self.winds else result

    def content_change(self, state0: State, state1: State) -> Tensor:
        """Change of `content` over the step, from differences of the fields: `(batch, level, *space)`."""
        constants = self.atmosphere.constants
        warming = state1["temperature"] - state0["temperature"]
        moistening = state1[fluxes.HUMIDITY] - state0[fluxes.HUMIDITY]
        result = torch.add(
            constants.heat_capacity_dry_air * warming, moistening, alpha=constants.latent_heat_vaporisation
        )
        if self.moist:
            humidity = state0[fluxes.HUMIDITY] + moistening / 2
            temperature = state0["temperature"] + warming / 2
            result = result + self.moist * (humidity * warming + temperature * moistening)
        if self.winds:
            # A thousandth of the content: the rounding of its own difference is below that of the rest.
            result = result + (self.kinetic_energy(state1) - self.kinetic_energy(state0))
        return result

    def columns(self, state0: State, state1: State) -> Tensor:
        air, seconds = self.atmosphere, self.atmosphere.step_seconds
        before, after = (air.surface_pressure(state) for state in (state0, state1))
        change = self.content_change(state0, state1)
        gained = air.integral_change(change, torch.add(self.content(state0), change, alpha=0.5), before, after)
        orography = air.orography(gained)
        if after is not None and orography is not None:
            moved = air.column_pressure(after, after) - air.column_pressure(before, before)
            gained = gained + orography * (moved / air.constants.gravity).to(gained.dtype)
        if self.has_top:
            gained = gained - (self._top_work(state1) - self._top_work(state0))
        return gained - seconds * self.gain(state1)

    def gain(self, state: State) -> Tensor:
        """`F_top - F_sfc` and what is unaccounted, W m-2: `(batch, *space)`."""
        return self.net_top(state) - self.net_surface(state) + self.heating

    def heat_capacity_of(self, state: State) -> Tensor | float:
        """Derivative of the energy by temperature, J kg-1 K-1, a number or `(batch, level, *space)`."""
        capacity = self.atmosphere.constants.heat_capacity_dry_air
        if self.moist:
            capacity = capacity + self.moist * state[fluxes.HUMIDITY]
        return capacity - self._top_share(state) * self._gas(state) if self.has_top else capacity

    def net_top(self, state: State) -> Tensor:
        """Net downward flux at the top, W m-2: `(batch, *space)`."""
        return fluxes.total(state, self.top)

    def net_surface(self, state: State) -> Tensor:
        """Net downward flux into the surface, W m-2, less the heat that snow released aloft: `(batch, *space)`."""
        fusion = self.atmosphere.constants.latent_heat_fusion if self.snow else None
        return fluxes.net_surface(state, self.surface, fusion)

    def residual(self, state0: State, state1: State, anchor: Anchor | None = None) -> Tensor:
        air, out = self.atmosphere, left(anchor, self.name)
        if means := amounts.shared(self, state1):
            return means.energy - self.scale(state0) - air.step_seconds * air.mean(self.gain(state1)) + out
        return air.mean(self.columns(state0, state1)) + out

    def scale(self, state: State) -> Tensor:
        if means := amounts.shared(self, state):
            return means.energy
        air = self.atmosphere
        pressure = air.surface_pressure(state)
        column = air.integral(self.content(state), pressure)
        orography = air.orography(column)
        if orography is not None:
            mass = air.column_pressure(pressure, column).to(column.dtype) / air.constants.gravity
            column = column + orography * mass
        return air.mean(column - self._top_work(state) if self.has_top else column)

    def gradient(self, state: State) -> dict[str, Tensor | float]:
        air, constants = self.atmosphere, self.atmosphere.constants
        temperature = state["temperature"]
        result: dict[str, Tensor | float] = {
            "temperature": self.heat_capacity_of(state),
            fluxes.HUMIDITY: constants.latent_heat_vaporisation + (self.moist * temperature if self.moist else 0.0),
        }
        result |= {wind: state[wind] for wind in self.winds}
        result |= dict.fromkeys(self.top, -air.step_seconds) | dict.fromkeys(self.surface, air.step_seconds)
        if fluxes.LATENT_HEAT in self.surface:
            # Evaporation carries its latent heat flux along (`fluxes.linked`).
            result[fluxes.EVAPORATION] = air.step_seconds * constants.latent_heat_vaporisation
        if self.snow:
            fusion = -air.step_seconds * constants.latent_heat_fusion
            result[fluxes.PRECIPITATION] = fusion * fluxes.snow_share(state)
        if means := amounts.shared(self, state):
            return result | ({"surface_pressure": means.growth[:, 2]} if air.has_surface_pressure else {})
        if air.has_surface_pressure:
            growth = air.growth(state["surface_pressure"], temperature)
            moved = (self.content(state) * growth).sum(1)
            orography = air.orography(moved)
            if orography is not None:
                moved = moved + orography * growth.sum(1)
            result["surface_pressure"] = moved / constants.gravity
        if self.has_top:
            self._add_top_gradient(state, result)
        return result
