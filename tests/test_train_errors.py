"""Bad input ends with exit code 2 and one line on stderr, before anything is decoded or thrown away."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file

DINO = ("dino_resnet18_cifar10", "--model", "dino", "--backbone", "test_resnet")
LIMITS = ("--batch-size", "16", "--max-steps", "1", "--no-report", "--mixed-precision", "no")
WRONG = {  # what is typed -> what the line must name
    "nope": "unknown recipe 'nope'",
    "--learning-rate 1": "--learning-rate",
    "--lr nan": "--lr",
    "--lr inf": "--lr",
    "--lr 0": "--lr",
    "--lr -1": "--lr",
    "--lr fast": "fast",
    "--batch-size 0": "--batch-size",
    "--batch-size -4": "--batch-size",
    "--batch-size 1": "--batch-size",
    "--batch-size 500": "120 images",
    "--gradient-accumulation 8": "--gradient-accumulation",
    "--data.path /no/such/folder": "/no/such/folder",
    "--data.path no/such-data-set": "no/such-data-set",
    "--data.image-column x": 'no image column "x"',
    "--data.image-column label": '"label"',
    "--data.label-column x": 'no label column "x"',
    "--data.label-column ambiguity": '"ambiguity"',
    "--data.split x": 'no split "x"',
    "--data.eval-split x --report": 'no split "x"',
    "--data.split train[:90] --data.eval-split train[80:] --report": "10 images of --data.eval-split train[80:]",
    "--model nope": "--model nope",
    "--model vi_simsiam_nope": "vi_simsiam_nope",
    "--model resnet18": "not a model of vi_simsiam",
    "--model simsiam_resnet18": "not a model of vi_simsiam",
    "--model hf-hub:a/b": "hf-hub:a/b",
    "--backbone nope": "nope",
    "--backbone test_resnet.nope": "nope",
    "--backbone vi_simsiam": "backbone",
    "--model vi_simsiam_resnet18 --backbone resnet34": "--backbone resnet34",
    "--backbone test_vit --image-size 33": "--image-size 33",
    "--backbone test_vit --image-size 32 --views.low 1 --views.low-size 20": "--views.low-size 20",
    "--image-size 200000": "--image-size 200000",
    "--image-size 99999999999999999999": "--image-size",
    "--resume": "no checkpoint",
    "--resume-force": "--resume-force needs --resume",
    "--tracker nope": "--tracker nope",
    "--method.beta 2": "beta",
    "--method.beta nan": "--method.beta",
    "--method.kappa-warmup -1": "kappa_warmup",
    "--method.kappa-weight nan": "--method.kappa-weight",
    "--method.hidden 0": "--method.hidden",
    "--method.hidden 999999999999": "--method",
    "--method.latent-dim 1": "latent_dim",
    "--method.latent-dim 99999999999999999999": "--method.latent-dim",
    "--method.latent-dim 1000000000000": "--method",
    "--views.scale 1 0.2": "--views.scale",
    "--views.scale nan 0.2": "--views.scale",
    "--views.standard 1": "--views.standard",
    "--views.standard -2": "--views.standard",
    "--views.flip 2": "--views.flip",
    "--views.hue 0.7": "--views.hue",
    "--views.sigma 0 1": "--views.sigma",
    "--views.brightness -1": "--views.brightness",
    "--views.low 2": "--views.low-size",
    "--views.low 2 --views.low-size 16 --views.low-scale 0 1": "--views.low-scale",
    "--weight-decay nan": "--weight-decay",
    "--momentum nan": "--momentum",
    "--seed 4294967296": "--seed",
    "--max-minutes 0": "--max-minutes",
    "--data.memory-gib 1e300": "--data.memory-gib",
}


def one_line(outcome) -> str:
    """The line on stderr of a command that was refused."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("train.py: "), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.endswith("\n")
    return outcome.err


@pytest.fixture
def refused(train_main, shapes_folder, tmp_path):
    """refused(arguments) -> the one line that the command got for an answer."""

    def refused(*arguments: object, recipe: tuple[str, ...] = ()) -> str:
        limits = (*LIMITS, "--data.path", shapes_folder, "--output-dir", tmp_path / "run")
        return one_line(train_main(*recipe, *limits, *arguments))

    return refused


@pytest.mark.parametrize("typed", WRONG)
def test_a_wrong_flag(refused, typed):
    words = typed.split()
    recipe = () if words[0].startswith("-") else (words.pop(0),)
    assert WRONG[typed] in refused(*words, recipe=recipe)


@pytest.mark.parametrize(
    "flag, value",
    [
        ("teacher-temperature", "nan"),
        ("teacher-temperature", "0"),
        ("student-temperature", "-1"),
        ("center-momentum", "2"),
        ("prototypes", "1"),
        ("bottleneck-dim", "0"),
        ("teacher", "nope"),
    ],
)
def test_a_wrong_option_of_dino(refused, flag, value):
    line = refused(f"--method.{flag}", value, recipe=DINO)
    assert flag.replace("-", "_") in line.replace("-", "_")


def test_folders_and_files_without_images(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty: no image" in refused("--data.path", tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("no image")
    assert "notes.txt" in refused("--data.path", tmp_path / "notes.txt")
    pq.write_table(pa.table({"number": [1] * 40}), tmp_path / "numbers.parquet")
    assert "no column holds images; the columns are number" in refused(
        "--data.path", tmp_path / "numbers.parquet"
    )
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing")
    assert "broken.parquet" in refused("--data.path", tmp_path / "broken.parquet")


def test_an_output_folder_that_is_a_file(refused, tmp_path):
    (tmp_path / "file").touch()
    assert "--output-dir" in refused("--output-dir", tmp_path / "file")
    assert "--output-dir" in refused("--output-dir", tmp_path / "file" / "run")


def test_a_typing_mistake_leaves_the_earlier_run_alone(train_main, small, tmp_path):
    run = tmp_path / "run"
    assert train_main(*small, "--max-steps", "1", "--no-report", "--output-dir", run).code == 0
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert {"config.json", "method.safetensors", "metrics.jsonl"} <= {p.name for p in before}
    (tmp_path / "corrupt").mkdir()
    for i in range(20):
        (tmp_path / "corrupt" / f"{i}.jpg").write_bytes(b"no image")
    mistakes = ["--data.path /no/such", "--backbone nope", "--views.flip 2", "--method.beta 3", "--lr nan"]
    for typed in (*mistakes, f"--data.path {tmp_path / 'corrupt'}", "--resume --lr 0.3"):
        over = [] if "--resume" in typed else ["--overwrite"]
        outcome = train_main(*small, "--output-dir", run, *over, *typed.split())
        assert outcome.code == 2
        assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


@pytest.fixture(scope="module")
def finished(train_main, small, tmp_path_factory):
    """A run of two steps, to be resumed with a mistake."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert train_main(*small, "--max-steps", "2", "--no-report", "--output-dir", run).code == 0
    return run


@pytest.mark.parametrize(
    "changed, named",
    [
        (("--lr", "0.3"), "--lr (0.05, now 0.3)"),
        (("--max-steps", "9", "--seed", "4"), "--max-steps (2, now 9), --seed (0, now 4)"),
        (("--method.beta", "0.5"), "--method.beta (1.0, now 0.5)"),
        (("--views.blur", "0.5"), "--views.blur (0.0, now 0.5)"),
        (("--data.split", "train[:90]"), "--data.split (train, now train[:90]), the images"),
        (
            ("--batch-size", "8", "--seed", "4", "--resume-force"),
            "--batch-size (16, now 8), --seed (0, now 4)",
        ),
    ],
)
def test_resuming_with_another_value(train_main, small, finished, changed, named):
    arguments = (*small, "--max-steps", "2", "--no-report", "--output-dir", finished, "--resume")
    line = one_line(train_main(*arguments, *changed))
    assert f"other values of {named}\n" in line


def test_resuming_by_force_with_another_batch(train_main, small, tmp_path, monkeypatch):
    """What is no longer exact is told and recorded, and the next time is no longer another value."""
    run = tmp_path / "run"
    arguments = (*small, "--max-steps", "4", "--no-report", "--output-dir", run)
    assert train_main(*arguments, "--max-minutes", "1e-9").code == 0
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "max-autotune")
    changed = (*arguments, "--batch-size", "8", "--resume")
    line = one_line(train_main(*changed))
    assert "--batch-size (16, now 8), ACCELERATE_DYNAMO_MODE (None, now max-autotune); --resume-force" in line
    outcome = train_main(*changed, "--resume-force", "--max-minutes", "1e-9")
    assert (outcome.code, outcome.out.count("not as the run began: ")) == (0, 2)
    assert "not as the run began: --batch-size (16, now 8): batches, views" in outcome.out
    outcome = train_main(*changed)
    assert (outcome.code, outcome.out.count("not as the run began: ")) == (0, 0)
    recipe = json.loads((run / "recipe.json").read_text())
    assert (recipe["batch_size"], recipe["environment"]["ACCELERATE_DYNAMO_MODE"]) == (8, "max-autotune")
    [continued] = recipe["continued"]
    assert continued["from"] == "step_0000001"
    assert len(continued["otherwise"]) == 2
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
        4,
    ]


def test_resuming_with_other_workers_is_no_other_run(train_main, small, finished):
    arguments = (*small, "--max-steps", "2", "--no-report", "--output-dir", finished, "--resume")
    assert train_main(*arguments, "--data.workers", "1", "--data.eval-split", "test").code == 0


def test_accumulation_is_said_once(train_main, small, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    line = one_line(train_main(*small, "--max-steps", "2", "--output-dir", tmp_path / "run"))
    assert "--gradient-accumulation" in line


def test_a_diverged_run_keeps_its_last_good_checkpoint(train_main, small, tmp_path):
    run = tmp_path / "run"
    arguments = (*small, "--log-every", "1000", "--save-every", "1", "--lr", "1e20", "--max-steps", "9")
    outcome = train_main(*arguments, "--output-dir", run)
    assert outcome.code == 2
    assert "try a smaller --lr" in outcome.err
    for checkpoint in (run / "checkpoints").glob("step_*/method.safetensors"):
        tensors = load_file(checkpoint)
        assert all(t.isfinite().all() for n, t in tensors.items() if "predictor" in n or "projector.0" in n)


@pytest.mark.parametrize("name", ["recipe.json", "method.safetensors", "optimizer.safetensors", "state.json"])
def test_resuming_from_a_damaged_file(train_main, small, tmp_path, name):
    arguments = (*small, "--max-steps", "2", "--no-report", "--output-dir", tmp_path / "run")
    assert train_main(*arguments).code == 0
    [file] = (tmp_path / "run").rglob(name)
    file.write_bytes(file.read_bytes()[:20])
    outcome = train_main(*arguments, "--resume")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    last = outcome.err.splitlines()[-1]
    assert last.startswith("train.py: ")
    assert "step_0000002" in last or name in last


def test_a_damaged_checkpoint_is_skipped_and_named(train_main, small, tmp_path):
    run = tmp_path / "run"
    arguments = (*small, "--max-steps", "3", "--save-every", "1", "--no-report", "--output-dir", run)
    assert train_main(*arguments).code == 0
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"step_0000002", "step_0000003"}
    whole = load_file(run / "checkpoints" / "step_0000003" / "method.safetensors")
    file = run / "checkpoints" / "step_0000003" / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    outcome = train_main(*arguments, "--resume")
    assert outcome.code == 0
    assert (
        "step_0000003 is skipped and set aside: optimizer.safetensors differs from its sha256" in outcome.out
    )
    assert "at step 2" in outcome.out
    again = load_file(run / "checkpoints" / "step_0000003" / "method.safetensors")
    assert all((again[key] == value).all() for key, value in whole.items())


def picture(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (colour, 2 * colour, 9)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("bad", [1, 10, 40])
def test_corrupt_images(train_main, tmp_path, bad):
    """Below the fraction that is tolerated they are left out and named, above it the training stops."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02}.png").write_bytes(b"no image" if i < bad else picture(i))
    arguments = ("--data.path", folder, "--data.max-bad-fraction", "0.1", "--output-dir", tmp_path / "run")
    outcome = train_main(*LIMITS, *arguments, "--method.latent-dim", "8")
    assert "00.png: not an image" in outcome.err
    if bad == 1:
        assert outcome.code == 0
    else:
        assert outcome.code == 2
        assert outcome.err.splitlines()[-1].startswith("train.py: ")
        assert f"{bad} of 40" in outcome.err.splitlines()[-1]


def test_a_loss_that_is_no_number(train_main, small, tmp_path):
    outcome = train_main(*small, "--lr", "1e20", "--max-steps", "4", "--output-dir", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("train.py: the loss is ")
    assert "--lr" in outcome.err.splitlines()[-1]
    assert not (tmp_path / "run" / "export").exists()


def test_the_real_exit_code(root, shapes_folder, tmp_path):
    """In a process of its own: nothing else is said, not even by the libraries."""
    command = [sys.executable, str(root / "train.py"), *LIMITS, "--output-dir", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, "--data.path", str(shapes_folder), "--views.scale", "1", "0.2"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path), "ACCELERATE_USE_CPU": "true"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("train.py: --views.scale")
    assert done.stderr.count("\n") == 1
