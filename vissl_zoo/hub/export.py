"""Write a trained model as a folder that timm loads: the `export/` of a run.

    config.json        timm's form: architecture, the arguments that rebuild it, preprocessing, metrics
    model.safetensors  the whole model: backbone, classifier if any, κ head, DINO's prototype head
    heads.safetensors  projector and predictor, if given; no model needs them to embed or to give κ
    README.md          the model card, if given

`import vissl_zoo` and `timm.create_model("local-dir:FOLDER", pretrained=True)` then give the same tensors and
the same κ. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import timm
import timm.models
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from vissl_zoo.errors import UserError, first_line
from vissl_zoo.models import RepresentationMixin, entrypoints
from vissl_zoo.models.read_weights import HEADER
from vissl_zoo.output import write_text

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

    The files are written to a temporary folder beside it, loaded back and compared with the model tensor by tensor.
    Only then are they moved into place: an interrupted or impossible export leaves the old one. Files of other names in
    `output_dir` are kept; a `heads.safetensors` of an earlier export is not.

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
    with unfinished(output_dir) as folder:
        config = _write_config(model, folder / CONFIG, metrics)
        save_weights(model.state_dict(), folder / WEIGHTS, config)
        if heads is not None:
            save_tensors(heads, folder / HEADS)
        if readme is not None:
            write_text(folder / README, readme)
        _check_reload(model, folder)
        output_dir.mkdir(exist_ok=True)
        if heads is None:
            (output_dir / HEADS).unlink(missing_ok=True)
        for name in (HEADS, WEIGHTS, README, CONFIG):
            if (folder / name).exists():
                os.replace(folder / name, output_dir / name)
    return output_dir


def load_heads(export_dir: str | os.PathLike) -> dict[str, Tensor] | None:
    """Return the tensors of projector and predictor of an export, or None when it has none.

    Raises:
        UserError: the file is damaged or unreadable.
    """
    path = Path(export_dir) / HEADS
    try:
        return load_file(path) if path.exists() else None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {first_line(error)}") from error


def find_export(folder: str | Path) -> Path:
    """The export folder in a run folder, or the folder itself if it is one.

    Raises:
        UserError: there is no export in it.
    """
    for candidate in (Path(folder) / "export", Path(folder)):
        if (candidate / CONFIG).is_file() and (candidate / WEIGHTS).is_file():
            return candidate
    raise UserError(
        f"{folder} holds no export: there is no {CONFIG} with a {WEIGHTS} in it or in {Path(folder) / 'export'}"
    )


def check_config(export: Path) -> dict[str, Any]:
    """The config.json of an export, refused where it cannot describe a model: timm would trip over it.

    Raises:
        UserError: it is absent, no JSON object, or an entry of it is of another kind.
    """
    config = read_json(export / CONFIG, "the export's")
    for key, kind, must in (
        ("architecture", str, "a name"),
        ("model_args", dict, "an object"),
        ("pretrained_cfg", dict, "an object"),
    ):
        if not isinstance(config.get(key, kind()), kind):
            raise UserError(
                f"{export / CONFIG} has {key} = {json.dumps(config[key])[:60]}, and it must be {must}"
            )
    return config


def open_export(export: Path, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The model of an export, as timm builds it with `options`, and its config.json.

    Raises:
        UserError: it cannot be loaded, or is of another model, such as the plain face of a published folder.
    """
    config = check_config(export)
    name = config.get("architecture")
    if not isinstance(name, str) or name not in entrypoints():
        whole = export / "full"
        hint = f"; the whole model is in {whole}" if (whole / CONFIG).is_file() else ""
        raise UserError(f"{export / CONFIG} names {name}, which is no model of the zoo{hint}")
    try:
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(f"local-dir:{export}", pretrained=True, **options), config
    except Exception as error:  # timm and safetensors each raise their own
        raise UserError(f"{export} cannot be loaded: {first_line(error)}") from error


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: it is absent or no JSON object; the line begins with `what`.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{what} {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{what} {path} is no JSON object")
    return found


def identity(model: nn.Module) -> tuple[str, dict[str, Any]]:
    """The architecture of a model as its export names it, and the arguments that rebuild the model as it is now.

    Raises:
        ValueError: an argument cannot be written as JSON.
    """
    known = cast(Any, model)  # to a type checker, every attribute of a module is a tensor or a module
    architecture = known.pretrained_cfg["architecture"]
    if hasattr(timm.models, "get_model_args"):  # knows a pooling or an input size that was changed later
        args = timm.models.get_model_args(model)
    else:
        args = {k: v for k, v in known._model_args.items() if not k.endswith(("drop_rate", "path_rate"))}
    # None is the rule "a κ head exactly without classifier", so that fine-tuning this export adds none.
    has_head = known.kappa_head is not None
    args["kappa_head"] = None if has_head == (known.num_classes == 0) else has_head
    # The class count stands at the root of config.json: transformers passes its own, and a second is a TypeError.
    args.pop("num_classes", None)
    for key, value in args.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ValueError(f"model argument {key!r} cannot be written to {CONFIG}: {error}") from error
    args = {k: v for k, v in args.items() if v is not None or k == "kappa_head"}
    if architecture in entrypoints():
        return architecture, args
    tag = known.pretrained_cfg.get("tag")  # a timm model that was given a κ head
    return "kappa", {**args, "backbone": f"{architecture}.{tag}" if tag else architecture}


@contextlib.contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, to be filled and then moved; it is gone at the end, whatever happened."""
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)  # not tempfile's: it would make an export that only its owner can read
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_weights(tensors: Mapping[str, Tensor], path: Path, config: Mapping[str, Any]) -> None:
    """Write a whole model as safetensors whose header says what rebuilds it.

    A file that is laid over a registered name so brings its own latent dimension and κ map: read with others,
    κ would be wrong without a sign. transformers, for its part, wants to see that the tensors are torch's.

    Args:
        tensors: the state dict.
        path: file to write.
        config: `architecture` and `model_args`, as in config.json.
    """
    described = {key: config[key] for key in ("architecture", "model_args")}
    save_tensors(tensors, path, {"format": "pt", HEADER: json.dumps(described)})


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors that everybody may read; safetensors itself writes for the owner alone."""
    # Copies of their own and contiguous, which channels_last is not.
    plain = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    save_file(plain, path, metadata)
    path.chmod(0o644)


def _write_config(model: nn.Module, path: Path, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    architecture, args = identity(model)
    save_config_for_hf(model, str(path), model_args=args)
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
    write_text(path, text + "\n")
    return config


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
