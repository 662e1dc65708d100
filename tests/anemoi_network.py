"""A graph transformer of anemoi-models with random weights, in a checkpoint as anemoi-training writes them for inference.

Only imported where anemoi-models, anemoi-graphs and anemoi-inference are installed.
"""

import json
from pathlib import Path

import numpy as np
import torch
from anemoi.graphs.create import GraphCreator
from anemoi.models.data_indices.collection import IndexCollection
from anemoi.models.interface import AnemoiModelInterface
from anemoi.utils.checkpoints import save_metadata
from anemoi.utils.config import DotDict
from omegaconf import OmegaConf

WIDTH, LAYERS, HEADS, TRAINABLE = 16, 2, 2, 3


def graph(latitudes: np.ndarray, longitudes: np.ndarray):
    """Points as data nodes, 48 cells of HEALPix as hidden ones, whose builder needs nothing more, and edges between them."""
    edges, nodes = "anemoi.graphs.edges.", "anemoi.graphs.nodes."
    attributes = {
        "edge_length": {"_target_": f"{edges}attributes.EdgeLength", "norm": "unit-std"},
        "edge_dirs": {"_target_": f"{edges}attributes.EdgeDirection", "norm": "unit-std"},
    }
    points = {"latitudes": latitudes.tolist(), "longitudes": longitudes.tolist()}
    builders = {
        ("data", "hidden"): {"_target_": f"{edges}CutOffEdges", "cutoff_factor": 0.8},
        ("hidden", "hidden"): {"_target_": f"{edges}KNNEdges", "num_nearest_neighbours": 6},
        ("hidden", "data"): {"_target_": f"{edges}KNNEdges", "num_nearest_neighbours": 3},
    }
    return GraphCreator(
        DotDict(
            {
                "nodes": {
                    "data": {"node_builder": {"_target_": f"{nodes}LatLonNodes", **points}},
                    "hidden": {"node_builder": {"_target_": f"{nodes}HEALPixNodes", "resolution": 1}},
                },
                "edges": [
                    {"source_name": a, "target_name": b, "edge_builders": [builder], "attributes": attributes}
                    for (a, b), builder in builders.items()
                ],
            }
        )
    ).create()


def configuration(forcing: list[str], diagnostic: list[str]):
    """What anemoi-training's `graphtransformer` is configured by, made small."""
    kernels = {
        "LayerNorm": {"_target_": "torch.nn.LayerNorm"},
        "Linear": {"_target_": "torch.nn.Linear"},
        "Activation": {"_target_": "torch.nn.GELU"},
        "QueryNorm": {"_target_": "anemoi.models.layers.normalization.AutocastLayerNorm", "bias": False},
        "KeyNorm": {"_target_": "anemoi.models.layers.normalization.AutocastLayerNorm", "bias": False},
    }
    part = {
        "num_channels": WIDTH,
        "trainable_size": TRAINABLE,
        "sub_graph_edge_attributes": ["edge_length", "edge_dirs"],
        "num_chunks": 1,
        "mlp_hidden_ratio": 2,
        "mlp_implementation": "mlp",
        "num_heads": HEADS,
        "qk_norm": False,
        "cpu_offload": False,
        "gradient_checkpointing": False,
        "layer_kernels": kernels,
        "shard_strategy": "edges",
        "graph_attention_backend": "pyg",  # the other one is for GPUs alone
        "edge_pre_mlp": False,
    }
    layers = "anemoi.models.layers."
    encoder = {"_target_": f"{layers}mapper.GraphTransformerForwardMapper", **part}
    decoder = {
        "_target_": f"{layers}mapper.GraphTransformerBackwardMapper",
        "initialise_data_extractor_zero": False,
        **part,
    }
    model = {
        "num_channels": WIDTH,
        "model": {
            "_target_": "anemoi.models.models.AnemoiModelEncProcDec",
            "hidden_nodes_name": "hidden",
            "latent_skip": True,
        },
        "processor": {"_target_": f"{layers}processor.GraphTransformerProcessor", "num_layers": LAYERS, **part},
        "encoders": {"0": {"source_datasets": ["data"], "dataset_fusing_strategy": "not_supported", "mapper": encoder}},
        "latent_aggregator": {"_target_": f"{layers}aggregator.SumAggregator"},
        "decoders": {"0": {"target_datasets": ["data"], "target_node_features": ["encoded_data"], "mapper": decoder}},
        "residual": {"datasets": {"data": {"_target_": f"{layers}residual.SkipConnection", "step": -1}}},
        "node_trainable_parameters": {"data": TRAINABLE, "hidden": TRAINABLE},
        "bounding": {"datasets": {"data": [{"_target_": f"{layers}bounding.ReluBounding", "variables": diagnostic}]}},
    }
    normalizer = {
        "_target_": "anemoi.models.preprocessing.normalizer.InputNormalizer",
        "config": {"default": "mean-std", "std": diagnostic},
    }
    data = {"forcing": forcing, "diagnostic": diagnostic, "processors": {"normalizer": normalizer}}
    return OmegaConf.create(
        {
            "data": {"frequency": "6h", "timestep": "6h", "datasets": {"data": data}},
            "model": model,
            "training": {"multistep_input": 2, "multistep_output": 1, "precision": "32"},
        }
    )


def save(
    path: Path, dataset: dict, kinds: dict[str, list[str]], statistics: dict, places: dict
) -> AnemoiModelInterface:
    """Write the checkpoint and return the network.

    Args:
      dataset: metadata of an anemoi store, of which `variables` counts. kinds: names that are `forcing` and `diagnostic`.
      statistics: `mean`, `stdev`, `minimum`, `maximum` by variable. places: `latitudes` and `longitudes` in degrees.
    """
    torch.manual_seed(3)
    config = configuration(**kinds)
    names = {text: number for number, text in enumerate(dataset["variables"])}
    indices = IndexCollection(config.data.datasets.data, names)
    network = AnemoiModelInterface(
        config=config,
        n_step_input=2,
        n_step_output=1,
        graph_data=graph(**places),
        statistics={"data": statistics},
        data_indices={"data": indices},
        metadata={"metadata_inference": {"dataset_names": ["data"], "data": {}}},
    )
    for name, weight in network.named_parameters():  # of zeros at the start, which nothing would come of
        if "trainable" in name:
            torch.nn.init.normal_(weight)
    types = {kind: [n for n in names if n in texts] for kind, texts in kinds.items()}
    types["prognostic"] = [n for n in names if n not in kinds["forcing"] + kinds["diagnostic"]]
    about = {
        "data_indices": {way: dict(getattr(indices.model, way).name_to_index) for way in ("input", "output")},
        "variable_types": types | {"target": []},
        "timesteps": {
            "timestep": "6h",
            "input_relative_date_indices": [0, 1],
            "output_relative_date_indices": [2],
            "relative_date_indices_training": [0, 1, 2],
            "input_offsets": ["-6h", "0h"],
            "output_offsets": ["6h"],
            "rollout_shift": "6h",
            "advance_map": {"outin": [[0, 1]], "inin": [[1, 0]]},
        },
    }
    metadata = {
        "version": "2.0",
        "config": OmegaConf.to_container(config),
        "dataset": {"data": dataset},
        "data_indices": {"data": json.loads(json.dumps(indices.todict(), default=lambda tensor: tensor.tolist()))},
        "metadata_inference": {"task": "forecaster", "dataset_names": ["data"], "data": about},
    }
    network.config = network.metadata = None  # as anemoi-training leaves them out of the pickle
    torch.save(network.eval(), path)
    save_metadata(path, metadata, supporting_arrays={"data": places})
    return network
