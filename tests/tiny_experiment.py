"""A whole experiment that takes seconds: sources of the small planet and the YAML over them."""

from pathlib import Path

import yaml
from small_planet import small_planet


def tiny_experiment(folder: Path) -> Path:
    """Sources and an experiment over them in `folder`; returns the path of its YAML."""
    planet = small_planet(times=72)
    (folder / "source").mkdir(parents=True)
    for number, part in enumerate((slice(0, 30), slice(30, 72))):
        planet.isel(time=part).to_netcdf(folder / "source" / f"part{number}.nc")
    run = folder / "run"
    experiment = {
        "directory": str(run),
        "ingest": {"sources": [{"path": str(folder / "source" / "*.nc")}], "times_per_region": 16},
        "stats": {"period": {"end": "2001-01-12"}},
        "train": {
            "period": {"end": "2001-01-12"},
            "network": {"embed_dim": 12, "blocks": 1},
            "phases": [{"updates": 30}, {"updates": 6, "rollout_steps": 2}],
            "optimizer": {"warmup_steps": 5},
            "save_every": 10,
        },
        "rollout": {
            "period": {"start": "2001-01-13"},
            "every_hours": 12,
            "lead_days": 1.5,
            "uncorrected_inits": 3,
            "long_run_days": 5,
            "batch_size": 4,
        },
        "verify": {
            "climatology": {"end": "2001-01-12"},
        },
        "report": {"title": "A tiny planet"},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))
    return path
