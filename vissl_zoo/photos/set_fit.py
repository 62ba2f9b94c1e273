"""What is fitted to a set of photos before they are scored: κ, where the model has none for them, and their reference.

It lies beside the table, in NAME.kappa.safetensors, and a later call for the same model takes it from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.correlation import correlation
from vissl_zoo.inference import Loaded, embed_all, model_hash
from vissl_zoo.output import write_whole
from vissl_zoo.photos.inputs import Inputs
from vissl_zoo.uncertainty.clusterings import Clusterings
from vissl_zoo.uncertainty.fitted_kappa import fit_to_embeddings, with_fresh_head
from vissl_zoo.uncertainty.head_fit import Fit
from vissl_zoo.uncertainty.reference import FEWEST as FEWEST_OF_A_SET
from vissl_zoo.uncertainty.reference import Reference
from vissl_zoo.uncertainty.view_embeddings import embed_views

PHOTO_MODEL = "kappa.efficientnet_lite0_photos"  # taken where no model is named; κ is fitted to the photos
LIMIT = (
    2000  # photos that are looked at, drawn at random; with their views they cost as much as 10,000 to score
)
VIEWS = 4  # of each, to fit κ to
SUFFIX = ".kappa.safetensors"
FITTING = 1  # to be raised when sets come to be fitted in another way


class SetFit(NamedTuple):
    """A model for one set of photos.

    Attributes:
        loaded: the model, with κ.
        reference: of the set, or None where it is too small or none was asked for.
        key: which fit this is, 16 hex digits; "" where nothing was fitted.
    """

    loaded: Loaded
    reference: Reference | None
    key: str


def fit_set(
    loaded: Loaded,
    inputs: Inputs,
    *,
    fit_head: bool,
    ask_set: bool = True,
    views: int = 0,
    file: Path | None = None,
    refit: bool = False,
    exact: bool = False,
    workers: int | None = None,
) -> SetFit:
    """Fit to a set of photos what it is to be scored with, or take it from `file`; says on stderr what κ is worth.

    Args:
        loaded: the model.
        inputs: the photos.
        fit_head: give the model a κ head that is fitted to them.
        ask_set: make the reference of the set.
        views: of each photo, that the reference is to look at.
        file: where the fit is looked for, and is put; None keeps it in memory.
        refit: do not look for it.
        exact, workers: as for `embed`.

    Raises:
        UserError: there are too few photos for κ and the model has none, or the file cannot be written.
    """
    model = with_fresh_head(loaded.model) if fit_head else loaded.model
    seen = VIEWS if fit_head else views
    settings = {
        "base": model_hash(loaded.model), "image_size": loaded.image_size, "exact": exact,
        "fit_head": fit_head, "ask_set": ask_set, "views": views, "fitting": FITTING,
    }  # fmt: skip
    tensors = None if refit or file is None else _read(file, settings)
    if tensors is None:
        options: dict[str, Any] = {"exact": exact, "workers": workers, "progress": "looking at the photos"}
        try:
            y = _look(loaded._replace(model=model), inputs, seen, options)
            tensors = _fit_head(model, y) if fit_head else {}
            if ask_set and len(y) >= FEWEST_OF_A_SET:
                tensors |= _ask_set(model, y[:, : 1 + views])
        except UserError as error:  # hardly a photo can be read, or all are the same
            if getattr(loaded.model, "kappa_head", None) is None:
                raise
            _say(f"nothing is fitted to these photos: {error}")
            return SetFit(loaded, None, "")
        data = save(tensors, metadata={"settings": json.dumps(settings, sort_keys=True)})
        if file is not None:
            write_whole(file, lambda unfinished: Path(unfinished).write_bytes(data))
    elif fit_head:
        _say(f"κ as fitted before is taken from {file}; --refit fits it anew")
    head = {name[5:]: value for name, value in tensors.items() if name.startswith("head.")}
    if head:
        cast(nn.Module, model.kappa_head).load_state_dict(head)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return SetFit(loaded._replace(model=model), _reference(tensors), digest.hexdigest()[:16])


def _look(loaded: Loaded, inputs: Inputs, views: int, options: dict[str, Any]) -> np.ndarray:
    """Embeddings (N, 1 + V, F) of the photos that are looked at."""
    found = []
    for part, rows in _sample(inputs):
        table, size = part.table.select(rows), loaded.image_size
        if views:
            found.append(embed_views(loaded.model, table, size, views=views, **options))
        else:
            found.append(embed_all(loaded.model, table, size, **options).embedding[:, None])
    return np.concatenate(found)


def _fit_head(model: nn.Module, embeddings: np.ndarray) -> dict[str, Tensor]:
    """Fit the model's κ head; its tensors, by the names that they have in the file."""
    fitted: Any = fit_to_embeddings(model, embeddings)
    _say(_worth(fitted.kappa_fit))
    return {f"head.{name}": value.cpu() for name, value in fitted.kappa_head.state_dict().items()}


def _ask_set(model: Any, embeddings: np.ndarray) -> dict[str, Tensor]:
    """The reference of the photos, as tensors."""
    head, device = model.kappa_head, next(model.parameters()).device
    with torch.inference_mode():
        parts = torch.from_numpy(embeddings[:, 0].copy()).split(4096)
        kappa = torch.cat([head(part.to(device)).float().cpu() for part in parts]).numpy()
    return _tensors(Reference.fit(embeddings, kappa, head.latent_dim))


def _sample(inputs: Inputs) -> list[tuple[Any, np.ndarray]]:
    """(part, rows of it) of at most `LIMIT` images drawn from all."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(inputs))[:LIMIT])
    ends = np.cumsum([0, *(len(part.paths) for part in inputs.parts)])
    rows = [chosen[(chosen >= a) & (chosen < b)] - a for a, b in itertools.pairwise(ends)]
    return [(part, own) for part, own in zip(inputs.parts, rows, strict=True) if len(own)]


def _worth(fit: Fit) -> str:
    """One line on what κ is worth on these photos."""
    ranks = correlation(fit.kappa, fit.aim, ranks=True)
    shown = "undefined" if ranks is None else f"{ranks.value:.2f}"
    gain = fit.constant_cross_entropy - fit.cross_entropy
    verdict = "" if gain > 0 else "; it is worth no more here than one κ for all"
    return (
        f"κ was fitted to {fit.images:,} photos. On {fit.held_out} of them, held out, its rank correlation with how "
        f"often a photo is grouped with its neighbours is {shown}{verdict}"
    )


def _tensors(reference: Reference) -> dict[str, Tensor]:
    own = reference.clusterings
    named = {"mean": own.mean, "basis": own.basis, "bank": own.bank, "members": own.members}
    named |= {f"centres.{i}": centres for i, centres in enumerate(own.centres)}
    named |= {name: getattr(reference, name) for name in ("scores", "mean_rank", "certainty")}
    return {f"reference.{name}": value.contiguous() for name, value in named.items()}


def _reference(tensors: dict[str, Tensor]) -> Reference | None:
    named = {name[10:]: value for name, value in tensors.items() if name.startswith("reference.")}
    if not named:
        return None
    count = sum(name.startswith("centres.") for name in named)
    centres = [named[f"centres.{i}"] for i in range(count)]
    clusterings = Clusterings(named["mean"], named["basis"], centres, named["bank"], named["members"])
    return Reference(clusterings, named["scores"], named["mean_rank"], named["certainty"])


def _read(file: Path, settings: dict[str, Any]) -> dict[str, Tensor] | None:
    """The tensors of an earlier fit for the same model and settings; None where there is none that can be used."""
    with contextlib.suppress(FileNotFoundError):
        try:
            with safe_open(file, "pt") as opened:
                if json.loads((opened.metadata() or {}).get("settings", "null")) != settings:
                    _say(f"{file} is of another model or other settings: κ is fitted anew")
                    return None
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, ValueError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            _say(f"{file} cannot be read: κ is fitted anew")
    return None


def _say(text: str) -> None:
    print(text, file=sys.stderr)
