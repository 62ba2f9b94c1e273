"""What a finished training leaves: the export, the report and the summary."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from torch import nn

from vissl_zoo.data import BadImage, ImageTable
from vissl_zoo.errors import UserError, first_line
from vissl_zoo.evaluation import report_training
from vissl_zoo.hub import Record, export_model, render_card
from vissl_zoo.methods import Method
from vissl_zoo.models import pool_size
from vissl_zoo.recipes import Recipe
from vissl_zoo.training.assembly import restore_backbone
from vissl_zoo.training.run_folder import Run
from vissl_zoo.uncertainty.fitted_kappa import refit_kappa
from vissl_zoo.uncertainty.head_fit import Fit

FEWEST_TO_FIT = 1000  # training images; of fewer, the clusters say little


def finish(run: Run, method: Method, untrained: nn.Module, table: ImageTable | None) -> None:
    """Export the trained model, measure it (unless --no-report), and print the summary."""
    recipe = run.recipe
    restore_backbone(method.model)
    model = method.exported_model().float().eval()
    describe_input(model, recipe, table)
    note = None
    if recipe.fit and method.kappa_is_detached and table is not None and len(table) >= FEWEST_TO_FIT:
        try:
            fit = refit_kappa(model, table, recipe.image_size, seed=recipe.seed, workers=recipe.data.workers)
            note = fit_note(fit)
        except UserError as error:  # the network has collapsed: it is exported all the same
            print(f"\nκ stays as the training learnt it: {error}", file=sys.stderr)
    heads = {
        f"{n}.{k}": v for n, head in method.heads().items() for k, v in head.float().state_dict().items()
    }

    def export(metrics: dict | None) -> Path:
        record = Record(method.row.method, recipe.data.path, recipe.image_size, run.command, note)
        card = render_card(model, record, metrics=metrics)
        target = run.folder / "export"
        try:
            return export_model(model, target, metrics=metrics, heads=heads or None, readme=card)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{target} cannot be written: {first_line(error)}; --resume makes it up"
            ) from error

    folder = export(None)  # before the report: whatever that may meet, the model is safe
    if table is None and recipe.report:
        print("\nno report: the data are a stream")
    elif table is not None and recipe.report:
        metrics, summary = report_training(
            run.folder / "report",
            model,
            untrained.to(next(model.parameters()).device).eval(),
            table,
            image_size=recipe.image_size,
            split=recipe.data.eval_split,
            columns=(recipe.data.image_column, recipe.data.label_column),
            limit=recipe.report_images,
            history=run.history(),
            diagnoses=run.diagnoses(),
            seconds=lambda: run.seconds,
            seed=recipe.seed,
            workers=recipe.data.workers,
            command=run.command,
        )
        export(metrics)
        print(summary)
    print(f"export:  {folder}, loaded by timm.create_model('local-dir:{folder}', pretrained=True)")


def fit_note(fit: Fit) -> str:
    """What the model's card says of its κ."""
    return (
        f"κ was fitted after the training, without labels, to clusters of {fit.images:,} training images. On "
        f"{fit.held_out} of them, held out, the cross-entropy with the target is {fit.cross_entropy:.3f} nats, and "
        f"{fit.constant_cross_entropy:.3f} with one κ for all."
    )


def describe_input(model: nn.Module, recipe: Recipe, table: ImageTable | None) -> None:
    """Tell timm what the model was trained on, so that its own transforms give it that."""
    size = recipe.image_size
    # Images about as small as the views are taken whole; of a photo the centre is, as the paper tests.
    small = table is not None and max(_a_size(table)) <= 1.5 * size
    cast("dict[str, Any]", model.pretrained_cfg).update(
        input_size=(3, size, size),
        pool_size=pool_size(model, size),
        crop_pct=1.0 if small else 0.875,
        interpolation="bilinear",
    )


def _a_size(table: ImageTable) -> tuple[int, int]:
    """Height and width of the first image that can be read."""
    for row in range(len(table)):
        with contextlib.suppress(BadImage):
            return table.size(row)
    raise UserError(f"{table.path}: no image can be read")
