"""Train VI-SimSiam in a plain torch loop of your own: no recipe, no command, no accelerate.

    python examples/own_loop.py

Images of noise stand for yours. Every other method of `vissl_zoo.methods` takes VISimSiam's place as it is.
"""

import timm
import torch
from torchvision.transforms import v2

import vissl_zoo  # noqa: F401  (its models come to timm)
from vissl_zoo.methods import VISimSiam


def train(images: torch.Tensor, steps: int, batch_size: int = 64) -> torch.nn.Module:
    """Learn from images (N, 3, H, W) in [0, 1]; the model that comes back answers `represent`."""
    model = timm.create_model("vi_simsiam", backbone="test_resnet", latent_dim=64)
    method = VISimSiam(
        model, variant="detached"
    )  # or VISimSiam(model, VISimSiam.Options(variant="detached"))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    jitter = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)
    normalize = v2.Normalize(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    augment = v2.Compose([v2.RandomResizedCrop(32, (0.2, 1.0)), v2.RandomHorizontalFlip(), jitter, normalize])
    for step in range(steps):
        batch = images[torch.randperm(len(images))[:batch_size]]
        views = [torch.stack([augment(image) for image in batch]) for _ in range(2)]
        method.on_step_start(step / steps)
        objective = method(views)  # loss, and the terms of Table 1: alignment, uniformity, kl
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
        method.on_step_end()
        print(f"step {step}: loss {objective.loss.item():.3f}, κ {objective.latents.kappa.mean().item():.1f}")
    return method.exported_model().eval()


if __name__ == "__main__":
    images = torch.rand(256, 3, 40, 40)
    print("κ of four images:", train(images, steps=10).represent(images[:4]).kappa.tolist())
