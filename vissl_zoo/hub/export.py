"""Write a trained model as a folder that timm loads: the `export/` of a run.

    config.json        timm's form: architecture, the arguments that rebuild it, preprocessing, metrics
    model.safetensors  the whole model: backbone, classifier if any, κ head, DINO's prototype head
    heads.safetensors  projector and predictor, if given; no model needs them to embed or to give κ
    README.md          the model card, if given

`import vissl_zoo` and `timm.create_model("local-dir:FOLDER", pretrained=True)` then give the same tensors and
the same κ. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import timm.models
import torch
from safetensors.torch import load_file, save_file
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from vissl_zoo.models import RepresentationMixin, entrypoints
from vissl_zoo.models._reading import HEADER

CONFIG, WEIGHTS, HEADS, README = "config.json", "model.safetensors", "heads.safetensors", "README.md"


def export_model(
    model: nn.Module,
    output_dir: str | os.PathLike,
    *,
    metrics: Mapping[str, Any] | None = None,
    heads: Mapping[str, Tensor] | None = None,
    readme: str | None = None,
) -> Path:
    """Export `model` to the folder `output_dir` and return it.

    The files are written to a temporary folder beside it, loaded back, compared with the model tensor by
    tensor, and only then moved into place, so an interrupted or impossible export leaves the old one. Files
    of other names in `output_dir` are kept; a `heads.safetensors` of an earlier export is not.

    Args:
        model: a model of the zoo, or one that went through `vissl_zoo.add_kappa_head`. The latter is written
            as the generic `kappa` on its timm backbone, whose parts (backbone and κ head) are the same.
        output_dir: folder to write; made when absent.
        metrics: JSON-serialisable results, kept in config.json under "metrics".
        heads: flat dict of the tensors of projector and predictor.
        readme: text of README.md.

    Raises:
        TypeError: `model` is no model of the zoo.
        ValueError: an argument it was built with, or `metrics`, is no JSON; or the export did not load back.
    """
    if not isinstance(model, RepresentationMixin):
        raise TypeError(f"export_model takes a model of the zoo, not {type(model).__name__}")
    output_dir = Path(output_dir)
    temporary = output_dir.parent / f".{output_dir.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)  # not tempfile's: it would make an export that only its owner can read
    try:
        config = _write_config(model, temporary / CONFIG, metrics)
        save_weights(model.state_dict(), temporary / WEIGHTS, config)
        if heads is not None:
            save_file(_plain(heads), temporary / HEADS)
        if readme is not None:
            (temporary / README).write_text(readme, encoding="utf-8")
        _check_reload(model, temporary)
        output_dir.mkdir(exist_ok=True)
        if heads is None:
            (output_dir / HEADS).unlink(missing_ok=True)
        for name in (HEADS, WEIGHTS, README, CONFIG):
            if (temporary / name).exists():
                (temporary / name).chmod(0o644)  # safetensors writes for the owner alone
                os.replace(temporary / name, output_dir / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output_dir


def load_heads(export_dir: str | os.PathLike) -> dict[str, Tensor] | None:
    """Return the tensors of projector and predictor of an export, or None when it has none."""
    path = Path(export_dir) / HEADS
    return load_file(path) if path.exists() else None


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to contiguous ones of their own, as safetensors wants (channels_last is not)."""
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}


def save_weights(tensors: Mapping[str, Tensor], path: Path, config: Mapping[str, Any]) -> None:
    """Write the tensors of a whole model, with what rebuilds it in the file's header.

    A file that is laid over a registered name so brings its own latent dimension and κ map: read with others,
    κ would be wrong without a sign. transformers, for its part, wants to see that the tensors are torch's.

    Args:
        tensors: the state dict.
        path: file to write.
        config: `architecture` and `model_args`, as in config.json.
    """
    described = {key: config[key] for key in ("architecture", "model_args")}
    save_file(_plain(tensors), path, metadata={"format": "pt", HEADER: json.dumps(described)})


def _write_config(model: nn.Module, path: Path, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    architecture = model.pretrained_cfg["architecture"]
    args = _model_args(model)
    if architecture not in entrypoints():  # a timm model that was given a κ head
        tag = model.pretrained_cfg.get("tag")
        args["backbone"] = f"{architecture}.{tag}" if tag else architecture
        architecture = "kappa"
    save_config_for_hf(model, path, model_args=args)
    config = json.loads(path.read_text(encoding="utf-8"))
    config.update(architecture=architecture, model_args=args)
    for key in ("tag", "description"):  # those of the weights that training began with
        config["pretrained_cfg"].pop(key, None)
    if metrics is not None:
        config["metrics"] = dict(metrics)
    try:
        text = json.dumps(config, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot write {CONFIG}: {error}") from error
    path.write_text(text + "\n", encoding="utf-8")
    return config


def _model_args(model: nn.Module) -> dict[str, Any]:
    """Return the arguments that rebuild `model` as it is now, not as it was made."""
    if hasattr(timm.models, "get_model_args"):  # knows a pooling or an input size that was changed later
        args = timm.models.get_model_args(model)
    else:
        args = {k: v for k, v in model._model_args.items() if not k.endswith(("drop_rate", "path_rate"))}
        args["num_classes"] = model.num_classes
    # None is the rule "a κ head exactly without classifier", so that fine-tuning this export adds none.
    has_head = model.kappa_head is not None
    args["kappa_head"] = None if has_head == (model.num_classes == 0) else has_head
    for key, value in args.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ValueError(f"model argument {key!r} cannot be written to {CONFIG}: {error}") from error
    # The class count stands at the root of config.json: transformers passes its own, and a second is a TypeError.
    args.pop("num_classes", None)
    return {k: v for k, v in args.items() if v is not None or k == "kappa_head"}


def _check_reload(model: nn.Module, folder: Path) -> None:
    """Compare what the export gives with what went in, without disturbing the global random state."""
    with torch.random.fork_rng(devices=[]):
        try:
            loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
        except Exception as error:
            raise ValueError(f"the export does not load back: {error}") from error
    given = {k: v.to("cpu", loaded[k].dtype) for k, v in model.state_dict().items() if k in loaded}
    wrong = loaded.keys() ^ model.state_dict().keys()
    wrong |= {k for k, v in given.items() if not torch.equal(v, loaded[k])}
    if wrong:
        raise ValueError(f"the export does not load back: {', '.join(sorted(wrong)[:8])} differ")
