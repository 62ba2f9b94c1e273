"""Fine-tune a model on labelled images.

    accelerate launch examples/fine_tune.py --model vi_simsiam_resnet18 --data.path labelled/ --output-dir classifier

`labelled/` holds one folder of images per class; 20 images will do to begin with. Parquet files and Hub data
sets work as well. What has no test split gives a quarter of each class for testing. `--freeze` trains the
classifier alone (linear probe): faster, and the embedding stays as it was.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed
from timm.data import create_transform, resolve_model_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, RandomSampler
from tqdm import tqdm

from vissl_zoo.cli import parse_flags
from vissl_zoo.cpu.cores import take_cores
from vissl_zoo.data import ImageTable
from vissl_zoo.errors import UserError
from vissl_zoo.hub import export_model
from vissl_zoo.inference import load_model, open_tables

USE = """
import timm, torch, vissl_zoo

model = timm.create_model("local-dir:{folder}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
photo = transform(vissl_zoo.open_image("photo.jpg"))
print(dict(zip(model.pretrained_cfg["label_names"], model(photo[None]).softmax(1)[0].tolist())))"""


@dataclass(frozen=True)
class Data:
    """The labelled images."""

    path: str = "shapes"
    """A folder with one folder of images per class, parquet files, a Hub data set, or `shapes`."""
    train_split: str = "train"
    """The split to learn from."""
    split: str | None = None
    """The split to test on; by default `test` or `validation`, else a quarter of each class."""


@dataclass(frozen=True)
class Options:
    """What to fine-tune, on what, and how."""

    model: str = "runs/demo/export"
    """A run folder, an export folder, or the name of a model with weights."""
    data: Data = field(default_factory=Data)
    freeze: bool = False
    """Train the classifier alone."""
    steps: int = 200
    """Optimizer steps."""
    batch_size: int = 32
    """Images a step, over all processes together; no more than there are."""
    lr: float | None = None
    """Learning rate of AdamW at its highest, by default 1e-3, and 3e-2 with --freeze."""
    layer_decay: float | None = None
    """Factor by which each earlier layer learns more slowly, such as 0.75; by default none."""
    image_size: int | None = None
    """Side of the images in pixels; by default what the model was trained at."""
    scratch: bool = False
    """Also train the same network from random weights, to compare with: twice the time."""
    seed: int = 0
    """Of the order and the crops of the images, and of the images held out."""
    threads: int | None = None
    """CPU threads of each process where there is no accelerator; by default all cores, in equal parts."""
    output_dir: str | None = None
    """Where the fine-tuned model is written, as a folder that timm loads."""


class Images(Dataset):
    """Rows of a table as (image (3, s, s), label), by timm's own transform for the model."""

    def __init__(self, table: ImageTable, rows: np.ndarray, model: nn.Module, size: int, training: bool):
        config = resolve_model_data_config(model) | {"input_size": (3, size, size)}
        self.transform = create_transform(**config, is_training=training)
        self.table, self.rows, self.size, self.labels = table, rows, size, table.labels[rows]
        self.decoded = lru_cache(1024)(self._decode)  # a photo of 12 megapixels once, not at each step

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int):
        return self.transform(self.decoded(self.rows[i])), int(self.labels[i])

    def _decode(self, row: int):
        image, _ = self.table.read_with_size(row, (2 * self.size, 2 * self.size))
        scale = 2 * self.size / min(image.size)
        return image if scale >= 1 else image.resize([math.ceil(scale * side) for side in image.size])


def fine_tune(model: nn.Module, images: Images, options: Options, accelerator: Accelerator) -> nn.Module:
    """Train `model` on `images` and return it as accelerate wrapped it: the whole loop."""
    model.requires_grad_(not options.freeze)
    model.get_classifier().requires_grad_(True)
    lr = options.lr or (3e-2 if options.freeze else 1e-3)
    optimizer = create_optimizer_v2(model, "adamw", lr, weight_decay=0.05, layer_decay=options.layer_decay)
    # timm's scheduler, since torch's know nothing of the factors that layer decay puts into the groups.
    schedule = CosineLRScheduler(optimizer, options.steps, warmup_t=options.steps // 10, t_in_epochs=False)
    processes = accelerator.num_processes
    batch = max(min(options.batch_size, len(images)) // processes, 1) * processes  # the same for each
    loader = DataLoader(images, batch, sampler=RandomSampler(images, num_samples=options.steps * batch))
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    model.train(not options.freeze)  # a frozen trunk keeps its batch statistics, too
    for step, (x, y) in enumerate(tqdm(loader, disable=not accelerator.is_main_process)):
        schedule.step_update(step)
        loss = cross_entropy(model(x), y, label_smoothing=0.1)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def test(model: nn.Module, images: Images, accelerator: Accelerator, name: str) -> str:
    """One line on the accuracy of the prepared `model`, with what it is to be compared with."""
    model.eval()
    loader = accelerator.prepare(DataLoader(images, 64 * accelerator.num_processes))
    right = int(sum(accelerator.gather_for_metrics(model(x).argmax(1) == y).sum() for x, y in loader))
    count, largest = len(images), np.bincount(images.labels).max() / len(images)
    said = f"accuracy {right / count:.3f}  {name} ({right} of {count} right"
    return f"{said}; always the commonest class: {largest:.3f})"


def labelled_images(options: Options) -> tuple[ImageTable, np.ndarray, ImageTable, np.ndarray]:
    """(table, rows) to learn from and (table, rows) to test on: the labelled rows only.

    Raises:
        UserError: the data cannot be opened, or have no labels.
    """
    data = options.data
    train, test = open_tables(data.path, train_split=data.train_split, split=data.split)
    for table in filter(None, (train, test)):
        if table.labels is None:
            raise UserError(f'{data.path}: "{table.split}" has no labels; make one folder per class')
    rows = np.flatnonzero(test.labels >= 0)
    if train is not None:
        return train, np.flatnonzero(train.labels >= 0), test, rows
    shuffled = np.random.default_rng(options.seed).permutation(rows)
    held_out = []
    for label in np.unique(test.labels[rows]):
        own = shuffled[test.labels[shuffled] == label]
        held_out.extend(own[: min(math.ceil(len(own) / 4), len(own) - 1)])  # each class can be learned
    if not held_out:
        raise UserError(f"{data.path}: no class has two images, so none can be held out to test on")
    return test, np.setdiff1d(rows, held_out), test, np.sort(held_out)


def main(arguments: list[str]) -> None:
    """Fine-tune, and print both accuracies."""
    options = parse_flags(Options, Options(), arguments, "fine_tune.py", __doc__)
    if min(options.steps, options.batch_size) < 1:
        raise UserError(f"--steps and --batch-size must be positive: {options.steps}, {options.batch_size}")
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(split_batches=True))
    if accelerator.device.type == "cpu" and (taken := take_cores(options.threads, accelerator.num_processes)):
        accelerator.print(f"threads: {taken}")
    train, train_rows, unseen, test_rows = labelled_images(options)
    classes = int(max(train.labels.max(), unseen.labels.max())) + 1
    counts = f"{len(train_rows)} images to learn from, {len(test_rows)} to test on"
    accelerator.print(f"{classes} classes, {counts}")
    for random_init in (True, False) if options.scratch else (False,):
        loaded = load_model(options.model, random_init=random_init, image_size=options.image_size)
        model, name, size, _ = loaded
        set_seed(options.seed)
        model.reset_classifier(classes)  # and κ's head goes: nothing is left that the loss does not reach
        tuned = fine_tune(model, Images(train, train_rows, model, size, training=True), options, accelerator)
        accelerator.print(
            test(tuned, Images(unseen, test_rows, model, size, training=False), accelerator, name)
        )
    if len(test_rows) < 50:  # an accuracy is then uncertain by 7 points and more
        accelerator.print(f"{len(test_rows)} images are too few to tell good from bad: label more to test on")
    if options.output_dir is not None and accelerator.is_main_process:
        names = [str(name) for name in unseen.class_names or range(classes)]
        # With their number, without which timm would drop the names again.
        model.pretrained_cfg.update(input_size=(3, size, size), label_names=names, num_classes=classes)
        folder = export_model(accelerator.unwrap_model(tuned, keep_fp32_wrapper=False), options.output_dir)
        print(USE.format(folder=folder))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"fine_tune.py: {error}", file=sys.stderr)
        sys.exit(2)
