"""A run follows from its seed and its steps alone: repeated, resumed or accumulated it is the same."""

import json

import pytest
import torch
from safetensors.torch import load_file

from vissl_zoo.training import assembly
from vissl_zoo.training.run_folder import Run


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run, name="method"):
    checkpoint = max((run / "checkpoints").iterdir())
    return load_file(checkpoint / f"{name}.safetensors")


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def run_of(train_main, small, tmp_path):
    """run_of(name, *flags) -> the folder of a small run without report that ended well."""

    def run_of(name, *flags, recipe=()):
        folder = tmp_path / name
        outcome = train_main(*recipe, *small, "--no-report", "--output-dir", folder, *flags)
        assert outcome.code == 0, outcome.err
        return folder

    return run_of


class TestReproducibility:
    def test_same_seed_same_weights(self, run_of, demo_run):
        again = run_of("again", "--max-steps", "6")
        assert equal(weights(again), weights(demo_run[0]))

    def test_other_seed_other_weights(self, run_of, demo_run):
        other = weights(run_of("other", "--max-steps", "6", "--seed", "1"))
        same = [k for k, v in weights(demo_run[0]).items() if v.dim() > 1 and torch.equal(v, other[k])]
        assert same == []

    def test_a_run_is_started_over(self, train_main, small, run_of, tmp_path):
        run = run_of("run", "--max-steps", "2")
        (run / "report").mkdir()
        outcome = train_main(*small, "--max-steps", "1", "--no-report", "--output-dir", run, "--overwrite")
        assert "over" in outcome.out
        assert [line["step"] for line in lines(run)] == [1]
        assert not (run / "report").exists()


RESUMED = {
    "demo": (),
    "beta": ("--method.variant", "beta", "--method.kappa-map", "exp", "--method.kappa-warmup", "0.6"),
    "accumulated": ("--batch-size", "8", "--gradient-accumulation", "2", "--warmup-epochs", "0.5"),
    "dino": ("--method.teacher", "ema", "--method.prototypes", "32"),
}


class TestResume:
    def arguments(self, small, name, folder):
        recipe = ()
        if name == "dino":
            small = (a for a in small if a not in ("--method.latent-dim", "64"))
            recipe = (
                "dino_resnet18_cifar10",
                "--model",
                "dino",
                "--backbone",
                "test_resnet",
                "--image-size",
                "32",
            )
        return (*recipe, *small, *RESUMED[name], "--max-steps", "6", "--no-report", "--output-dir", folder)

    @pytest.mark.parametrize("name", RESUMED)
    def test_equals_a_run_without_a_break(self, train_main, small, tmp_path, monkeypatch, name):
        whole, broken = (self.arguments(small, name, tmp_path / n) for n in ("whole", "broken"))
        assert train_main(*whole).code == 0
        with monkeypatch.context() as patch:
            patch.setattr(Run, "out_of_time", property(lambda run: run.step == 3))
            outcome = train_main(*broken, "--max-minutes", "5")
        assert outcome.code == 0
        assert "stopped at step 3 of 6; --resume" in outcome.out
        assert not (tmp_path / "broken" / "export").exists()
        outcome = train_main(*broken, "--resume")
        assert "at step 3" in outcome.out
        for part in ("method", "optimizer"):
            assert equal(weights(tmp_path / "whole", part), weights(tmp_path / "broken", part))
        timeless = [
            [
                {k: v for k, v in line.items() if k not in ("seconds", "images_per_second", "data_share")}
                for line in lines(run)
            ]
            for run in (tmp_path / "whole", tmp_path / "broken")
        ]
        assert timeless[0] == timeless[1]

    def test_a_killed_run_goes_on_from_its_last_checkpoint(self, train_main, small, tmp_path, monkeypatch):
        """Killed after step 5, in the middle of a line of the log; the checkpoint is of step 4."""
        run = tmp_path / "run"
        arguments = self.arguments(small, "demo", run)

        def kill(this):
            if this.step == 5:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "out_of_time", property(kill))
            outcome = train_main(*arguments, "--save-every", "2", "--log-every", "1")
        assert outcome.code == 130
        assert outcome.err.splitlines()[-1].startswith("train.py: interrupted; --resume")
        assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5]
        with (run / "metrics.jsonl").open("a") as log:
            log.write('{"step": 6, "lo')
        assert train_main(*arguments, "--resume", "--log-every", "1").code == 0
        assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 6]
        assert train_main(*self.arguments(small, "demo", tmp_path / "whole")).code == 0
        assert equal(weights(tmp_path / "whole"), weights(run))

    def test_max_minutes(self, train_main, small, tmp_path):
        arguments = self.arguments(small, "demo", tmp_path / "run")
        outcome = train_main(*arguments, "--max-minutes", "1e-9")
        assert (outcome.code, "stopped at step 1 of 6" in outcome.out) == (0, True)
        assert train_main(*arguments, "--resume").code == 0
        assert (tmp_path / "run" / "export" / "model.safetensors").exists()

    def test_a_finished_run_makes_up_its_report(self, train_main, small, run_of):
        run = run_of("run", "--max-steps", "2")
        before = weights(run)
        outcome = train_main(
            *small, "--max-steps", "2", "--output-dir", run, "--resume", "--report", "--report-images", "40"
        )
        assert outcome.code == 0
        assert (run / "report" / "index.html").exists()
        assert equal(weights(run), before)


class TestSteps:
    @pytest.fixture
    def drawn(self, monkeypatch):
        """The numbers of the batches whose views were drawn, with the images in each."""
        drawn = []

        class Recording(assembly.ViewPipeline):
            def __call__(self, images, sizes, step, **where):
                drawn.append((step, len(images)))
                return super().__call__(images, sizes, step, **where)

        monkeypatch.setattr(assembly, "ViewPipeline", Recording)
        return drawn

    def test_gradient_accumulation(self, run_of, drawn):
        flags = ("--batch-size", "8", "--gradient-accumulation", "2", "--max-steps", "3", "--log-every", "1")
        accumulated = lines(run_of("two", *flags))
        assert drawn == [(i, 8) for i in range(6)]
        drawn.clear()
        at_once = lines(run_of("one", "--max-steps", "3", "--log-every", "1"))
        assert drawn == [(i, 16) for i in range(3)]
        for name in ("step", "lr", "epoch"):
            assert [line[name] for line in accumulated] == [line[name] for line in at_once]
        assert [line["step"] for line in at_once] == [1, 2, 3]

    def test_accumulated_gradients_are_a_mean(self, run_of):
        """With a learning rate that is 0 in float32, two batches give the momentum of their mean."""
        flags = ("--batch-size", "8", "--lr", "1e-60", "--weight-decay", "0", "--momentum", "0.5")
        both = weights(
            run_of("both", *flags, "--gradient-accumulation", "2", "--max-steps", "1"), "optimizer"
        )
        apart = weights(run_of("apart", *flags, "--max-steps", "2"), "optimizer")
        first = weights(run_of("first", *flags, "--max-steps", "1"), "optimizer")
        for key, mean in both.items():
            second = apart[key] - 0.5 * first[key]
            scale = 1e-5 + mean.abs().max()
            assert ((first[key] + second) / 2 - mean).abs().max() < 1e-3 * scale, key

    def test_epochs(self, run_of, drawn):
        run = run_of("run", "--epochs", "2", "--batch-size", "50", "--log-every", "1")
        assert [line["epoch"] for line in lines(run)] == [0.5, 1, 1.5, 2]
        assert drawn == [(i, 50) for i in range(4)]
