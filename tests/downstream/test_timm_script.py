"""Fine-tuning with timm's training script: the calls that it makes, made here, and the script itself if it is at hand.

timm's package does not hold the script. Set TIMM_CHECKOUT to a checkout of pytorch-image-models to run it, too.
"""

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs

CHECKOUT = os.environ.get("TIMM_CHECKOUT")


@pytest.fixture
def photos(tmp_path):
    """train/ and validation/ with two classes of eight images each."""
    for split in ("train", "validation"):
        for name, colour in {"blue": (30, 60, 200), "red": (200, 40, 30)}.items():
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (40, 36), tuple(c + 3 * i for c in colour)).save(folder / f"{i}.png")
    return tmp_path / "photos"


def created(model, pretrained_path="", initial_checkpoint="", **model_kwargs):
    """The model that train.py makes of these flags, with --pretrained and --num-classes 2."""
    importlib.import_module("vissl_zoo")  # what --device-modules does, before anything else
    overlay = {}
    if pretrained_path:
        overlay["pretrained_cfg_overlay"] = {"file": str(pretrained_path), "num_classes": -1}
    return timm.create_model(
        model,
        pretrained=not initial_checkpoint,
        in_chans=3,
        num_classes=2,
        drop_rate=0.0,
        drop_path_rate=None,
        drop_block_rate=None,
        global_pool=None,
        bn_momentum=None,
        bn_eps=None,
        scriptable=False,
        checkpoint_path=str(initial_checkpoint),
        **overlay,
        **model_kwargs,
    )


def trunk(model):
    return {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}


def test_both_ways_to_name_an_export_give_the_same_trunk(exports, load, small):
    export = exports("resnet")
    narrow = {k: v for k, v in small("resnet")._model_args.items() if k in ("channels", "layers")}
    whole = load("resnet")
    expected = {k: v for k, v in whole.state_dict().items() if not k.startswith("kappa_head.")}
    by_folder = trunk(created(f"local-dir:{export}"))
    by_file = trunk(created("vi_simsiam_resnet18", export / "model.safetensors", **narrow))
    assert by_folder.keys() == by_file.keys() == expected.keys()
    assert all(torch.equal(v, by_folder[k]) for k, v in expected.items())
    assert all(torch.equal(v, by_file[k]) for k, v in expected.items())


def test_initial_checkpoint_is_refused(exports):
    """It wants every key to fit, classifier included: it continues a training and begins none."""
    export = exports("resnet")
    with pytest.raises(RuntimeError, match="kappa_head"):
        created(
            "vi_simsiam_resnet18",
            initial_checkpoint=export / "model.safetensors",
            channels=(8, 8, 16, 16),
            layers=(1, 1, 1, 1),
        )


def test_an_epoch_of_its_calls_learns(exports, photos):
    model = created(f"local-dir:{exports('resnet')}")
    args = argparse.Namespace(
        opt="sgd", lr=0.05, weight_decay=2e-5, momentum=0.9, layer_decay=0.75, opt_eps=None, opt_betas=None
    )
    data = resolve_data_config({"input_size": (3, 32, 32)}, model=model)
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(cfg=args))
    loader = create_loader(
        create_dataset("", root=str(photos), split="train", is_training=True, batch_size=8),
        input_size=data["input_size"],
        batch_size=8,
        is_training=True,
        mean=data["mean"],
        std=data["std"],
        num_workers=0,
        use_prefetcher=False,
        device=torch.device("cpu"),
        no_aug=True,
    )
    plan = argparse.Namespace(sched="cosine", epochs=4, warmup_epochs=0, cooldown_epochs=0, min_lr=0.0)
    scheduler, epochs = create_scheduler_v2(
        optimizer, **{"sched": "cosine", "num_epochs": 4, **_known(scheduler_kwargs, plan)}
    )
    losses = []
    for epoch in range(epochs):
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(model.train()(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        scheduler.step(epoch + 1)
    assert losses[-1] < 0.5 * losses[0]


def _known(function, namespace):
    """What timm's helper makes of the flags; its releases ask for different ones."""
    try:
        return function(namespace)
    except AttributeError:
        return {}


@pytest.mark.skipif(not CHECKOUT, reason="TIMM_CHECKOUT names no checkout of pytorch-image-models")
@pytest.mark.parametrize("by", ["folder", "file"])
def test_the_script_itself(exports, photos, tmp_path, by):
    export = exports("resnet")
    model = ["--model", f"local-dir:{export}"]
    if by == "file":
        narrow = ["--model-kwargs", "channels=(8,8,16,16)", "layers=(1,1,1,1)"]
        model = ["--model", "vi_simsiam_resnet18", "--pretrained-path", export / "model.safetensors", *narrow]
    flags = """--pretrained --num-classes 2 --device-modules vissl_zoo --device cpu --epochs 1 --warmup-epochs 0
        --cooldown-epochs 0 -b 8 -j 0 --input-size 3 32 32 --opt adamw --lr 1e-3"""
    command = [
        sys.executable,
        Path(CHECKOUT) / "train.py",
        photos,
        *model,
        *flags.split(),
        "--output",
        tmp_path / "out",
    ]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "out").rglob("summary.csv"))
