"""Weights that members draw: the moments of SWAG and of Laplace in closed form, and ensembles that are functions of seeds."""

import dataclasses

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import FREE, store_of

import emulator as em
from emulator.data.batch import Batch
from emulator.data.normalisation import Normalizer
from emulator.model import checkpoint
from emulator.model.posterior import Posterior, with_drawn_weights
from emulator.model.stepper import StepResult
from emulator.planet.grid import Grid
from emulator.training.options import TrainOptions
from emulator.training.options.sections import PosteriorOptions
from emulator.training.posterior import check_posterior, laplace, swag

NAMES = ["temperature", "surface_pressure", "u_component_of_wind", "v_component_of_wind"]


def states(folder, weights):
    for number, weight in enumerate(weights):
        checkpoint.save(folder / f"state-{number}", {"step/network.w": weight}, {"update": number})
    return [folder / f"state-{number}" for number in range(len(weights))]


def test_swag_draws_half_of_the_variances_and_half_of_the_last_deviations(tmp_path):
    torch.manual_seed(0)
    weights = torch.randn(6, 2, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.3]])
    made = swag(states(tmp_path, weights), ["w"], 4, "base")
    deviations = (weights - weights.mean(0))[-4:].flatten(1).double()
    variance = weights.flatten(1).double().var(0, unbiased=False)
    expected = torch.diag(variance) / 2 + deviations.T @ deviations / (2 * 3)
    drawn = torch.stack([made.draw(0, member)["w"] for member in range(2000)]).flatten(1).double()
    torch.testing.assert_close(drawn.mean(0), weights.mean(0).flatten().double(), rtol=0.1, atol=0.06)
    torch.testing.assert_close(torch.cov(drawn.T), expected, rtol=0.1, atol=0.05)
    assert torch.equal(made.draw(3, 1, 0.0)["w"], weights.mean(0))
    made.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior")
    assert torch.equal(again.draw(3, 1)["w"], made.draw(3, 1)["w"])
    assert not torch.equal(again.draw(3, 1)["w"], again.draw(3, 2)["w"])
    with pytest.raises(ValueError, match="3 states of a training or more"):
        swag(states(tmp_path, weights)[:2], ["w"], 4, "base")
    with pytest.raises(checkpoint.CheckpointError, match="distribution of weights in"):
        Posterior.load(tmp_path / "state-0")


class LinearStep(torch.nn.Module):
    """A network that is one matrix: the posterior of its rows is that of a linear regression."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.network = torch.nn.Conv2d(inputs, outputs, 1, bias=False)
        self.network.weight = torch.nn.Parameter(self.network.weight[..., 0, 0].detach())
        self.network.forward = lambda x: torch.einsum("oi,bihw->bohw", self.network.weight, x)
        self.change_std, self.diagnostic_scale = (
            torch.ones(outputs - 1, 1, 1),
            Normalizer(torch.zeros(1), torch.ones(1)),
        )
        self.layout, self.device = type("Layout", (), {"lengths": (1,)}), torch.device("cpu")

    def anchor(self, state):
        return None

    def forward(self, state, forcing, clock, anchor):
        made = self.network(forcing)
        return StepResult(made[:, :-1], made[:, -1:], {})


@dataclasses.dataclass
class Regression:
    """Samples of features with correlated channels, and truths about a linear map of them."""

    features: torch.Tensor
    truth: torch.Tensor
    grid: Grid

    def starts(self, steps):
        return np.arange(len(self.features))

    def some_starts(self, steps, length):
        return self.starts(steps)

    def batch(self, starts, steps):
        x, y = self.features[starts], self.truth[starts]
        state = torch.stack([y[:, :-1], y[:, :-1]], 1)
        return Batch(state, y[:, None, -1:], x[:, None], x[:, None])


def test_the_laplace_covariance_of_a_linear_network_is_that_of_bayesian_regression():
    """Rows have precision sum of x x^T / v_c + prior: the textbook's, though only gradients were looked at."""
    torch.manual_seed(0)
    grid, mixing = Grid.gaussian(8), torch.tensor([[1.0, 0.7, 0.0], [0.0, 0.5, 0.2], [0.0, 0.0, 2.0]])
    features = torch.einsum("bihw,ij->bjhw", torch.randn(60, 3, *grid.shape), mixing)
    step, errors = LinearStep(16, 3), torch.linspace(0.5, 2, 16)
    truth = step.network(features).detach() + errors.view(-1, 1, 1) * torch.randn(60, 16, *grid.shape)
    options = PosteriorOptions("laplace", layer="weight", samples=60, prior=1e4)
    made = laplace(step, Regression(features, truth, grid), options, "base")
    axes, std = made.tensors["axes/weight"].double(), made.tensors["std/weight"].double()
    seen = torch.einsum("bihw,bjhw->ij", features, features).double()
    for row in (0, 7, 15):
        expected = torch.linalg.inv(seen / errors[row].double() ** 2 + 1e4 * torch.eye(3))
        found = axes @ torch.diag(std[row] ** 2) @ axes.T
        torch.testing.assert_close(found, expected, rtol=0.35, atol=0.1 * float(expected.diagonal().min()))
    assert torch.equal(made.draw(0, 1, 0.0)["weight"], step.network.weight.detach())
    with pytest.raises(ValueError, match="among the matrices weight, got 'head'"):
        laplace(step, Regression(features, truth, grid), dataclasses.replace(options, layer="head"), "base")


def train(paths, output, **more):
    options = {
        "network": {"kind": "sfno", "embed_dim": 8, "blocks": 1},
        "conservation": FREE,
        "prognostic": NAMES,
        "phases": [{"updates": 8, "batch_size": 2}],
        "optimizer": {"warmup_steps": 1, "lr": 0.02},
    }
    return em.train(*paths, output, **options | more)


@pytest.mark.slow
def test_an_ensemble_of_drawn_weights_is_a_function_of_the_seed_alone(tmp_path):
    paths = store_of(tmp_path, small_planet(times=12, nlat=8, levels=2))
    more = {"save_every": 2, "keep": 4, "posterior": {"rank": 3}}
    train(paths, tmp_path / "swag", **more)
    path, kept = tmp_path / "swag" / "checkpoint", tmp_path / "swag" / "posterior"
    ensemble = {"members": 3, "kind": "none", "weights": kept, "seed": 2}

    def forecast(**given):
        return em.forecast(path, paths[0], "2001-01-01", days=0.5, ensemble=ensemble | given)

    three, two = forecast(), forecast(members=2)
    for name in NAMES:
        np.testing.assert_array_equal(three[name].isel(member=slice(2)), two[name])
    late = three["temperature"].isel(lead_time=-1)
    assert float(late.std("member").mean()) > 0
    alike = forecast(weights_scale=0.0)["temperature"].isel(lead_time=-1)
    np.testing.assert_array_equal(alike.isel(member=0), alike.isel(member=1))
    model, posterior = em.load_model(path, "cpu"), Posterior.load(kept)
    drawn = with_drawn_weights(model, posterior, 2, 1)
    alone = em.forecast(drawn, paths[0], "2001-01-01", days=0.5)
    np.testing.assert_array_equal(alone["temperature"], three["temperature"].isel(member=1))
    with pytest.raises(ValueError, match="without a cascade or member_checkpoints"):
        em.forecast([model, model], paths[0], "2001-01-01", days=0.5, ensemble=ensemble)
    posterior.base = "0" * 64
    with pytest.raises(ValueError, match="Expected weights drawn for the checkpoint 0000"):
        with_drawn_weights(model, posterior, 2, 1)


def test_distributions_that_a_training_cannot_leave_are_refused():
    def options(**more):
        return TrainOptions.of({"store": "a", "statistics": "b", "output": "c", **more})

    with pytest.raises(ValueError, match="keep of 3 or more"):
        check_posterior(options(posterior={"kind": "swag"}))
    with pytest.raises(ValueError, match="predict change"):
        check_posterior(options(posterior={"kind": "laplace"}, predict="state"))
    with pytest.raises(ValueError, match="whole states and networks"):
        check_posterior(options(posterior={"kind": "laplace"}, parallel={"space": 2}))
    check_posterior(options(posterior={"kind": "swag"}, keep=3))
