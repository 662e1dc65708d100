"""torch-harmonics' SFNO (`torch_harmonics.examples.models.SphericalFourierNeuralOperator`) as a network of this project.

Both compute the same function, so weights trained there run here, faster; and it is the strictest test of ours.
"""

import torch
from torch import nn

from emulator.networks.sfno import SFNO, SFNOOptions

_GRIDS = {"legendre-gauss": ("gaussian", False), "equiangular": ("equiangular", True)}
_NORMS = {"instance_norm": "instance", "none": "none"}


def from_torch_harmonics(model: nn.Module) -> SFNO:
    """The same network with the same weights.

    Covers GELU, instance normalisation or none, every scale factor and truncation, and learned, harmonic or no positions.
    Raises `ValueError` for what has no counterpart here (other activations and normalisations, bias of the transforms,
    sequence positions, dropout, and an inner grid that differs at a scale factor of 1).
    """
    state = dict(model.state_dict())
    net = SFNO(model.in_chans, model.out_chans, *model.img_size, *_grid(model), options=_options(model, state))
    own = net.state_dict()
    renamed = {}
    for name, value in state.items():
        target, value = _rename(name, value, net)
        if target is not None:
            renamed[target] = value
    if missing := sorted(set(own) ^ set(renamed)):
        raise ValueError(f"Expected weights for {sorted(own)}, and nothing else; these differ: {missing}")
    net.load_state_dict(renamed)
    return net.train(model.training)


def _grid(model):
    if model.grid not in _GRIDS:
        raise ValueError(f"Expected a grid among {sorted(_GRIDS)}, got {model.grid!r}")
    inner = model.grid if model.scale_factor == 1 else "legendre-gauss"
    if model.grid_internal != inner:
        raise ValueError(f"Expected the inner grid {inner!r}, got {model.grid_internal!r}")
    return _GRIDS[model.grid]


def _options(model, state):
    if model.normalization_layer not in _NORMS:
        raise ValueError(f"Expected a normalisation among {sorted(_NORMS)}, got {model.normalization_layer!r}")
    if model.activation_function is not nn.GELU:
        raise ValueError(f"Expected GELU, got {model.activation_function.__name__}")
    if unsupported := [n for n in state if n.endswith("global_conv.bias")] + [
        n for n, m in model.named_modules() if type(m).__name__.startswith("Dropout") or type(m).__name__ == "DropPath"
    ]:
        raise ValueError(f"Expected no bias of the transforms and no dropout, got {unsupported}")
    position = type(model.pos_embed).__name__
    positions = {
        "Identity": "none",
        "SpectralPositionEmbedding": "harmonics",
        "LearnablePositionEmbedding": "learned",
    }
    if position not in positions:
        raise ValueError(f"Expected a position embedding among {sorted(positions)}, got {position}")
    return SFNOOptions(
        embed_dim=model.embed_dim,
        blocks=model.num_layers,
        scale_factor=model.scale_factor,
        truncation=model.hard_thresholding_fraction,
        mlp_ratio=len(state["blocks.0.mlp.fwd.0.weight"]) / model.embed_dim if model.use_mlp else 0.0,
        encoder_layers=0,
        norm=_NORMS[model.normalization_layer],
        pre_norm="none",
        activation=False,
        inner_skip="none",
        big_skip="add" if model.residual_prediction else "none",
        position=positions[position],
    )


def _rename(name, value, net):
    """Name and value here of one of torch-harmonics' weights; None for a buffer that is made anew."""
    if name == "pos_embed.position_embeddings":
        if net.options.position != "learned":
            return None, None
        return "position.field", value[0].expand(-1, *net.outer.shape).permute(1, 2, 0)
    if name == "residual_projection.weight":
        return "residual.weight", value[..., 0, 0]
    part, _, rest = name.partition(".")
    if part in ("encoder", "decoder"):
        return f"{part}.layers.0.{rest.removeprefix('0.')}", value[..., 0, 0]
    block, _, rest = rest.partition(".")
    prefix = f"blocks.{block}."
    if rest == "global_conv.weight":  # (out, in, l) complex -> (l, in, real / imaginary, out)
        return prefix + "filters.0.weight", torch.view_as_real(value).permute(2, 1, 3, 0)
    if rest.startswith("norm."):
        return prefix + rest, value
    layers = {"mlp.fwd.0": "mlp.layers.0", "mlp.fwd.2": "mlp.layers.1"}
    layer, _, kind = rest.rpartition(".")
    if layer not in layers:
        raise ValueError(f"Expected a weight of torch-harmonics' SFNO, got {name!r}")
    return f"{prefix}{layers[layer]}.{kind}", value[..., 0, 0] if kind == "weight" else value
