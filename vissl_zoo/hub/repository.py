"""Two faces of the same weights, as the folder that a Hub repository will be.

    D/README.md              the model card
    D/config.json            timm's own architecture and nothing of vissl_zoo
    D/model.safetensors      the backbone (and classifier, if there is one): plain timm loads it
    D/vissl_zoo.safetensors  the whole model, for a registered name's `hf_hub_filename`
    D/full/                  the export, which becomes a branch of its own

A backbone that timm lacks has no plain face: config.json and model.safetensors are left out, and the card says so.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from vissl_zoo.errors import UserError
from vissl_zoo.hub.card import Place, Record, render_card
from vissl_zoo.hub.export import (
    CONFIG,
    HEADS,
    README,
    WEIGHTS,
    open_export,
    read_json,
    save_tensors,
    save_weights,
    unfinished,
)
from vissl_zoo.models import HEAD_ARGS, backbone_of
from vissl_zoo.models.head_weights import split_heads
from vissl_zoo.output import write_text

WHOLE = "vissl_zoo.safetensors"
FULL = "full"
_OWN = {README, CONFIG, WEIGHTS, WHOLE, FULL}


def full_branch(revision: str) -> str:
    """The branch of the whole model beside the plain one: `full` beside main, `REVISION-full` beside others."""
    return FULL if revision == "main" else f"{revision}-{FULL}"


def read_evaluation(folder: str | Path) -> dict[str, Any]:
    """The metrics.json in a folder of `vissl-zoo evaluate` or in the report of a run.

    Raises:
        UserError: there is none.
    """
    path = Path(folder)
    path = path / "metrics.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"--evaluation {folder} holds no metrics.json: make it with `vissl-zoo evaluate`")
    found = read_json(path, "--evaluation")
    if "data" not in found or not {"knn", "linear", "uncertainty", "retrieval"} & found.keys():
        raise UserError(f"--evaluation {path} is not of `vissl-zoo evaluate`: it has no data or no protocol")
    return found


def write_repository(
    export: Path,
    output_dir: str | os.PathLike,
    repo_id: str,
    record: Record,
    *,
    metrics: Mapping[str, Any] | None = None,
    revision: str = "main",
    dataset: str | None = None,
    license: str = "apache-2.0",
) -> Path:
    """Write the folder of `repo_id` for an export and return it; no network is touched.

    It is written beside `output_dir`, loaded by timm, and only then moved into place.

    Args:
        export: folder of the export.
        output_dir: folder to write; replaced if an earlier call made it.
        repo_id: "ORG/NAME", which the card tells the reader to type.
        record: how the model came to be.
        metrics: of a metrics.json, for the card; by default what the export's config.json keeps.
        revision: branch of the plain face.
        dataset: the training data's name on the Hub, for the card.
        license: of the weights, as the Hub names it.

    Raises:
        UserError: the export cannot be loaded, or `output_dir` holds files of others.
    """
    output_dir = Path(output_dir)
    found = sorted(p.name for p in output_dir.iterdir()) if output_dir.is_dir() else []
    foreign = [name for name in found if name not in _OWN]
    if not {WHOLE, FULL} <= {*found}:  # the names in it are those of an export, which is not to be lost
        foreign = foreign or found
    if foreign or output_dir.is_file():
        raise UserError(
            f"--output-dir {output_dir} holds {', '.join(foreign[:3]) or 'a file'}: give an empty folder"
        )
    model, config = open_export(export)
    try:
        with unfinished(output_dir) as folder:
            plain = _write_plain(model, config, folder)
            save_weights(model.state_dict(), folder / WHOLE, config)
            branch = full_branch(revision)
            at = "" if revision == "main" else f"@{revision}"
            place = Place(
                f"hf-hub:{repo_id}@{branch}", f"hf-hub:{repo_id}{at}" if plain else None, repo_id, branch
            )
            shown = config.get("metrics") if metrics is None else metrics
            card = render_card(model, record, metrics=shown, place=place, dataset=dataset, license=license)
            (folder / FULL).mkdir()
            for name in (CONFIG, WEIGHTS, HEADS):
                if (export / name).exists():
                    shutil.copy(export / name, folder / FULL)
            for face in (folder, folder / FULL):
                write_text(face / README, card)
            shutil.rmtree(output_dir, ignore_errors=True)
            os.replace(folder, output_dir)
    except OSError as error:
        raise UserError(f"--output-dir {output_dir} cannot be written: {error.strerror or error}") from error
    return output_dir


def _write_plain(model: nn.Module, config: dict[str, Any], folder: Path) -> bool:
    """Write config.json and model.safetensors of plain timm; False if timm lacks the backbone."""
    args = config.get("model_args", {})
    backbone = backbone_of(config["architecture"], args).split(".")[0]
    if not timm.is_model(backbone):
        return False
    timm_args = {k: v for k, v in args.items() if k not in HEAD_ARGS}
    plain = {k: v for k, v in config.items() if k != "metrics"}
    plain.update(architecture=backbone, model_args=timm_args)
    write_text(folder / CONFIG, json.dumps(plain, indent=2, allow_nan=False) + "\n")
    save_tensors(split_heads(model.state_dict())[0], folder / WEIGHTS, {"format": "pt"})
    with torch.random.fork_rng(devices=[]):
        bare = timm.create_model(backbone, num_classes=config.get("num_classes", 0), **timm_args)
    bare.load_state_dict(load_file(folder / WEIGHTS))  # strict: what timm would miss is an error here
    return True
