"""FaceNetwork: crops to rows, whatever the batch; random changes by clip; frozen parts and norms."""

import math

import pytest
import torch

from memofast.errors import MemofastError
from memofast.model.face_networks import augmentation
from memofast.model.face_networks.augmentation import augmented
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.model.face_networks.network import PARTS, WIDTHS, FaceNetwork, denseface_weights

RNG = torch.tensor([7, 3])
KEYS = torch.tensor([11, -5, 2**40 + 1])
OFFSETS = torch.tensor([0, 3, 3, 8], dtype=torch.int32)


def crops_of(count: int, side: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, side * side), generator=generator, dtype=torch.uint8)


def network_of(kind: str = "denseface", **changed) -> FaceNetwork:
    torch.manual_seed(1)
    return FaceNetwork(**{"network": kind, "crop": 24, "side": 24, "mean": 120.0, "std": 60.0, **changed})


@pytest.mark.parametrize("kind", WIDTHS)
def test_rows_do_not_depend_on_the_batch(kind):
    network, crops = network_of(kind).eval(), crops_of(8)
    network.settle(crops, OFFSETS, KEYS)
    with torch.no_grad():
        whole = network(crops, OFFSETS, KEYS, None)
        last = network(crops[3:], torch.tensor([0, 5], dtype=torch.int32), KEYS[2:], None)
    assert whole.shape == (8, WIDTHS[kind])
    torch.testing.assert_close(whole[3:], last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", WIDTHS)
def test_settled_norms_have_the_statistics_of_what_they_saw_and_stay_so(kind):
    network, crops = network_of(kind, augment=False).train(), crops_of(8)
    first = network.norms()[0]
    network.settle(crops, OFFSETS, KEYS)
    seen = []
    handle = first.register_forward_hook(lambda module, given, made: seen.append(made.detach().clone()))
    network(crops, OFFSETS, KEYS, RNG)
    handle.remove()
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(len(first.bias)), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen[0].std((0, 2, 3), correction=0), torch.ones(len(first.bias)), atol=2e-4, rtol=0)
    before = first.running_mean.clone()
    network.train()(crops // 2, OFFSETS, KEYS, RNG)
    assert torch.equal(first.running_mean, before)


def test_crops_of_a_clip_change_alike_and_otherwise_at_every_step():
    clips = torch.arange(576.0).view(1, 1, 24, 24).repeat(8, 1, 1, 1)
    found = augmented(clips, RNG, KEYS, OFFSETS, noise=0.0)
    assert torch.equal(found[0], found[2]) and torch.equal(found[3], found[7])
    assert not torch.equal(found[0], found[3]) and not torch.equal(found[0], clips[0])
    assert torch.equal(found, augmented(clips, RNG, KEYS, OFFSETS, noise=0.0))
    assert not torch.equal(found, augmented(clips, RNG + torch.tensor([0, 1]), KEYS, OFFSETS, noise=0.0))
    alone = augmented(clips[3:], RNG, KEYS[2:], torch.tensor([0, 5], dtype=torch.int32), noise=0.0)
    assert torch.equal(found[3:], alone)
    noisy = augmented(clips, RNG, KEYS, OFFSETS, noise=9.0) - found
    assert noisy.abs().max() <= 9.0 and noisy.std() == pytest.approx(9 / 3**0.5, rel=0.02)
    assert not torch.equal(noisy[0], noisy[1])


def where_dots_go() -> tuple[torch.Tensor, torch.Tensor]:
    """Where a dot 6 pixels right of the centre of 25 lies after the changes of 4,000 clips, from the centre."""
    dot = torch.zeros(4000, 1, 25, 25)
    dot[:, 0, 12, 18] = 1.0
    found = augmented(dot, RNG, torch.arange(4000), torch.arange(4001, dtype=torch.int32), noise=0.0)[:, 0]
    weight, places = found.sum((1, 2)), torch.arange(25) - 12.0
    return (found.sum(1) * places).sum(1) / weight, (found.sum(2) * places).sum(1) / weight


def test_changes_are_of_the_published_size(monkeypatch):
    """Up to 8 of 112 pixels of shift are 2 of 25; -15 to 16 degrees; half are mirrored."""
    across, down = where_dots_go()
    assert 0.47 < (across < 0).float().mean() < 0.53
    assert 3.1 < across.abs().min() < 3.5 and 8.0 < across.abs().max() < 8.3
    assert -4.2 < down.min() < -3.5 and 3.5 < down.max() < 4.2
    monkeypatch.setattr(augmentation, "SHIFT", 0.0)
    across, down = where_dots_go()
    assert down.min() == pytest.approx(-6 * math.sin(math.radians(16)), abs=0.03)
    assert down.max() == pytest.approx(6 * math.sin(math.radians(15)), abs=0.03)
    assert across.abs().min() == pytest.approx(6 * math.cos(math.radians(16)), abs=0.03)


@pytest.mark.parametrize("kind", WIDTHS)
def test_frozen_parts_are_the_first(kind):
    for frozen in (0, 1, PARTS[kind]):
        network = network_of(kind, frozen=frozen)
        trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        assert (not trained) == (frozen == PARTS[kind])
        assert any("stem" in name for name in trained) == (frozen == 0)
    parts = {id(parameter) for part in network._parts() for parameter in part.parameters()}
    assert parts == {id(parameter) for parameter in network.parameters()}


def test_a_denseface_file_gives_weights_and_normalisation(tmp_path):
    torch.manual_seed(4)
    trained = DenseNet(5).eval()
    save_denseface(
        tmp_path / "d.safetensors", trained.state_dict(), DenseFaceMeta(tuple("abcde"), 101.0, 33.0, side=24)
    )
    weights, entries = denseface_weights(tmp_path / "d.safetensors", "denseface")
    assert entries == {"side": 24, "mean": 101.0, "std": 33.0}
    network, crops = network_of(**entries).eval(), crops_of(8)
    network.body.load_state_dict(weights, strict=False)
    with torch.no_grad():
        wanted = trained.activations((crops.view(-1, 1, 24, 24).float() - 101) / 33)["last"]
        torch.testing.assert_close(network(crops, OFFSETS, KEYS, None), wanted)
    with pytest.raises(MemofastError, match="resnet3d"):
        denseface_weights(tmp_path / "d.safetensors", "resnet3d")
