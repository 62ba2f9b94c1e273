"""Add an export to the weights that the package ships: float16, into the table, with its model card.

    python experiments/ship.py runs/best --tag cifar10 --evaluation evaluations/best-cifar10
    python experiments/ship.py vi_simsiam_resnet18.cifar10 --evaluation F     # new figures for shipped weights
    python experiments/ship.py                                                # the model cards alone

The name is the export's own, or that of `--model` if both have the same backbone. Nothing is changed unless the
float16 model agrees with the export. Tensors that a shipped file already holds are not shipped a second time: both
names then load that file.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cards import write_cards
from vissl_zoo import weights
from vissl_zoo.cli import parse_flags
from vissl_zoo.errors import UserError, first_line
from vissl_zoo.hub.card import Record, read_record
from vissl_zoo.hub.card_figures import data_name, shown_part
from vissl_zoo.hub.export import find_export, open_export, save_weights
from vissl_zoo.hub.repository import read_evaluation
from vissl_zoo.models import backbone_of, entrypoints, method_names, pool_size

LARGEST = 40_000_000
"""Bytes of one file."""
EMBEDDING_TOLERANCE = 1e-2
"""‖y16 - y‖ / ‖y‖ of each image's embedding: a rounding to 11 bits is off by 5e-4 at most, and fifty layers add up."""
KAPPA_TOLERANCE = 1e-2
"""|κ16 - κ| / κ of each image."""
IMAGES = 16
_CFG_KEYS = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std", "fixed_input_size")


@dataclass(frozen=True)
class Arguments:
    """What is shipped, and under which name."""

    tag: str = ""
    """The part of the name after the dot: cifar10."""
    model: str | None = None
    """The registered name; by default the export's."""
    method: str | None = None
    """The method as the card calls it; by default as the export's card does."""
    description: str = ""
    """One line for timm's configuration."""
    evaluation: str | None = None
    """The folder that `vissl-zoo evaluate` left, for the card; by default the figures are those of the run's report."""
    dataset: str | None = None
    """The training data's name on the Hub, for the card."""
    license: str = "apache-2.0"
    """Of the weights, as the Hub names it."""
    note: str | None = None
    """A sentence that stands beside every figure of the card."""
    default: bool = False
    """Make it the name's default tag; otherwise the first that was shipped is."""
    cards: str = "model_cards"
    """Folder of the model cards, which are written anew."""


def main(arguments: list[str] | None = None) -> int:
    """Run the tool; returns the exit code, which is 2 after one line on stderr about bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    what = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    try:
        flags = parse_flags(
            Arguments, Arguments(), arguments, "python experiments/ship.py WHAT", __doc__ or ""
        )
        if what in weights.shipped():
            _renew(what, flags)
        elif what is not None:
            print(ship(find_export(what), flags))
        elif flags != Arguments(cards=flags.cards):
            raise UserError("a run, an export or the name of shipped weights comes first (see --help)")
        print(f"cards: {', '.join(str(path) for path in write_cards(Path(flags.cards)))}")
    except UserError as error:
        print(f"experiments/ship.py: {error}", file=sys.stderr)
        return 2
    except (OSError, SafetensorError) as error:  # an installed package is often not the user's to change
        where = f"{weights.FOLDER} or --cards"
        print(f"experiments/ship.py: {where} cannot be written: {first_line(error)}", file=sys.stderr)
        return 2
    return 0


def ship(export: Path, flags: Arguments) -> str:
    """Write file and row; returns what to say of them.

    Raises:
        UserError: the name, the tag, the size or the agreement is not as it must be.
    """
    model, config = open_export(export, num_classes=0)
    name = _registered_name(config, flags)
    if model.eval().kappa_head is None:
        raise UserError(f"{export} has no κ head, and a shipped model must answer `represent`")
    generic = ("kappa_head",) if name == "kappa" else ("backbone", "kappa_head")
    args = {k: v for k, v in config.get("model_args", {}).items() if k not in generic}
    cfg = {k: v for k, v in config["pretrained_cfg"].items() if k in _CFG_KEYS}
    cfg["pool_size"] = pool_size(model, cfg["input_size"][-1])
    card = _card(read_record(export), config.get("metrics"), flags)
    full = f"{name}.{flags.tag}"
    temporary = weights.FOLDER / f".{full}.{os.getpid()}.safetensors"
    try:
        save_weights(_half(model, export), temporary, {"architecture": name, "model_args": args})
        size = temporary.stat().st_size
        if size > LARGEST:
            raise UserError(f"{full} would be {size / 1e6:.1f} MB, and {LARGEST / 1e6:.0f} MB is the most")
        overlay = {**cfg, "file": str(temporary)}
        reloaded = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **args).eval()
        embedding, kappa = disagreement(model, reloaded, cfg["input_size"])
        if embedding > EMBEDDING_TOLERANCE or kappa > KAPPA_TOLERANCE:
            raise UserError(
                f"{full} in float16 is off by {embedding:.1e} in the embedding and {kappa:.1e} in κ; "
                f"{EMBEDDING_TOLERANCE} and {KAPPA_TOLERANCE} are the most"
            )
        file, rows = _place(temporary, full)
    finally:
        temporary.unlink(missing_ok=True)
    sha256 = weights.sha256_of(weights.FOLDER / file)
    row = weights.ShippedWeights(full, file, sha256, cfg, args, flags.description, card)
    others = {key: other for key, other in rows.items() if key != full or not flags.default}
    weights.write_table({full: row, **others} if flags.default else {**others, full: row})
    return (
        f"{full}: {size / 1e6:.1f} MB, sha256 {sha256}\n"
        f"float16 against the export: embedding within {embedding:.1e}, κ within {kappa:.1e} (relative)"
    )


def _renew(name: str, flags: Arguments) -> None:
    """Put the figures of an evaluation, and what the flags say for the card, into a row of the table."""
    rows = weights.shipped()
    card = rows[name].card
    record = Record.from_dict({"method": name.split(".")[0], **card.get("record", {})})
    told = {key: card[key] for key in ("dataset", "license") if key in card}
    rows[name] = replace(rows[name], card={**_card(record, card.get("metrics"), flags), **told})
    weights.write_table(rows)


def _card(record: Record, metrics: dict[str, Any] | None, flags: Arguments) -> dict[str, Any]:
    """What the table keeps for the model card."""
    said = {key: value for key in ("method", "note") if (value := getattr(flags, key))}
    card: dict[str, Any] = {"record": replace(record, **said).to_dict(), "license": flags.license}
    if flags.dataset:
        card["dataset"] = flags.dataset
    if flags.evaluation is not None:
        metrics = read_evaluation(flags.evaluation)
    if not metrics:
        return card
    metrics = shown_part(metrics)
    named = {"data": data_name(metrics["data"])} if metrics.get("data") else {}  # not a path of this machine
    return {**card, "metrics": {**metrics, **named}}


def _place(new: Path, full: str) -> tuple[str, dict[str, weights.ShippedWeights]]:
    """Give the weights of `full` their place: the name of their file, and the rows of the table as they are now.

    The file is one that holds these tensors already, or their own. Rows that shared what lay there before keep it.
    """
    rows, own = weights.shipped(), f"{full}.safetensors"
    tensors = load_file(new)
    for file in sorted({row.file for row in rows.values() if row.path.is_file()}):
        held = load_file(weights.FOLDER / file)
        if held.keys() == tensors.keys() and all(torch.equal(held[key], tensors[key]) for key in held):
            return file, rows
    sharing = [name for name, row in rows.items() if row.file == own and name != full]
    if sharing:
        kept = f"{sharing[0]}.safetensors"
        os.replace(weights.FOLDER / own, weights.FOLDER / kept)
        rows |= {name: replace(rows[name], file=kept) for name in sharing}
    os.replace(new, weights.FOLDER / own)
    return own, rows


def disagreement(model: Any, other: Any, input_size: tuple[int, int, int]) -> tuple[float, float]:
    """The largest relative difference of two models' embeddings and κ, over images of noise of several contrasts."""
    x = torch.randn(IMAGES, *input_size, generator=torch.Generator().manual_seed(0))
    x = x * torch.linspace(0.1, 2, IMAGES).view(-1, 1, 1, 1)
    with torch.inference_mode():
        a, b = model.represent(x), other.represent(x)
    embedding = (b.embedding - a.embedding).norm(dim=1) / a.embedding.norm(dim=1)
    return embedding.max().item(), ((b.kappa - a.kappa).abs() / a.kappa).max().item()


def _half(model: Any, export: Path) -> dict[str, Tensor]:
    """The state dict in float16; whole numbers stay."""
    halved = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    for key, value in halved.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{export}: {key} is not finite in float16")
    return halved


def _registered_name(config: dict[str, Any], flags: Arguments) -> str:
    """The name to ship under."""
    if not re.fullmatch(r"[a-z0-9_]+", flags.tag):
        raise UserError(f"--tag {flags.tag!r} must be small letters, digits and underscores, such as cifar10")
    name = flags.model or config["architecture"]
    if name == "kappa" == config["architecture"]:
        return name
    if name not in entrypoints() or name in (*method_names(), "kappa"):
        raise UserError(f"{name} is no name with a backbone of its own; say which with --model")
    own, wanted = backbone_of(config["architecture"], config.get("model_args", {})), backbone_of(name, {})
    if own.split(".")[0] != wanted:
        raise UserError(f"--model {name} is on {wanted}, and the export on {own}")
    return name


if __name__ == "__main__":
    sys.exit(main())
