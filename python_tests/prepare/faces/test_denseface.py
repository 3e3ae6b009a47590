import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from memofast.errors import MemofastError
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import FEATURE_WIDTH, DenseNet, shrink
from memofast.prepare.faces import denseface_training as training
from memofast.prepare.faces import labelled_faces, picture_schedule
from memofast.prepare.faces.denseface import DenseFace, resize_faces


@pytest.fixture
def faces(tmp_path):
    """Two classes that differ in which half is bright, a third that is rare."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (60, 48, 48), dtype=np.uint8)
    labels = np.arange(60) % 2
    images[labels == 0, :24] += 150
    images[labels == 1, 24:] += 150
    labels[:4] = 2
    path = tmp_path / "faces.npz"
    np.savez(path, images=images, labels=labels, classes=np.array(["up", "down", "rare"]))
    return path


def options(**changes):
    return training.TrainingOptions(**({"epochs": 1, "batch": 12, "limit": 28, "precision": "fp32"} | changes))


def test_shapes_follow_the_published_network():
    net = DenseNet(8).eval()
    channels = []
    for stage in net.stages:
        stage.register_forward_hook(
            lambda _, __, out: channels.append((out[0] if isinstance(out, tuple) else out).shape[1:])
        )
    feature, logits = net(torch.randn(2, 1, 64, 64))
    assert channels == [(216, 32, 32), (108, 16, 16), (300, 16, 16), (150, 8, 8), (342, 8, 8)]
    assert feature.shape == (2, FEATURE_WIDTH) and logits.shape == (2, 8) and (feature >= 0).all()


def test_file_keeps_weights_and_facts(tmp_path):
    net = DenseNet(3)
    save_denseface(tmp_path / "d.safetensors", net.state_dict(), DenseFaceMeta(("a", "b", "c"), 100.0, 50.0))
    model = DenseFace(tmp_path / "d.safetensors", batch=4)
    crops = np.random.default_rng(1).integers(0, 255, (6, 64, 64), dtype=np.uint8)
    features, labels = model(crops)
    with torch.no_grad():
        expected, logits = net.eval()((torch.from_numpy(crops)[:, None].float() - 100) / 50)
    np.testing.assert_allclose(features, expected, atol=1e-4)
    np.testing.assert_allclose(labels, logits.softmax(1), atol=1e-5)
    assert model.meta.classes == ("a", "b", "c") and len(model.fingerprint) == 32
    assert [part.shape for part in model(crops[:0])] == [(0, 342), (0, 3)]


def test_layers_are_the_means_of_activations_before_each_transition(tmp_path):
    net = DenseNet(3).eval()
    seen = {}
    for name, stage in (("trans1", 1), ("trans2", 3)):  # the norm's output, before its ReLU
        net.stages[stage].norm.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.clone()}))
    save_denseface(tmp_path / "d", net.state_dict(), DenseFaceMeta(("a", "b", "c"), 100.0, 50.0))
    crops = np.random.default_rng(1).integers(0, 255, (5, 64, 64), dtype=np.uint8)
    model = DenseFace(tmp_path / "d", batch=2, layers=("trans2", "last", "trans1"), pixels=(90.0, 40.0))
    features, labels = model(crops)
    assert model.width == features.shape[1] == 300 + 342 + 216
    with torch.no_grad():
        last, logits = net((torch.from_numpy(crops)[:, None].float() - 90) / 40)
    expected = [seen["trans2"].relu().mean((2, 3)), last, seen["trans1"].relu().mean((2, 3))]
    np.testing.assert_allclose(features, torch.cat(expected, 1), atol=1e-4)
    np.testing.assert_allclose(labels, logits.softmax(1), atol=1e-5)


def test_files_that_are_not_denseface(tmp_path):
    (tmp_path / "x").write_bytes(b"12345678")
    for name in ("x", "none"):
        with pytest.raises(MemofastError, match="denseface train"):
            DenseFace(tmp_path / name)


def test_faces_with_labels_that_are_no_numbers_are_one_short_line(tmp_path):
    images, classes = np.zeros((3, 9, 8), np.uint8), np.array(["up", "down"])
    np.savez(tmp_path / "f.npz", images=images, labels=np.array(["up", "down", "up"]), classes=classes)
    with pytest.raises(MemofastError, match="labels must be 3 numbers from 0 to 1"):
        labelled_faces.read_faces(tmp_path / "f.npz", 0)
    whole = (tmp_path / "f.npz").read_bytes()
    (tmp_path / "g.npz").write_bytes(whole.replace(b"images.npy", b"\xcc" * 10, 1))
    with pytest.raises(MemofastError, match="is not an npz") as raised:
        labelled_faces.read_faces(tmp_path / "g.npz", 0)
    assert len(str(raised.value)) < 400 + len(str(tmp_path))


def test_a_file_of_another_network_is_one_line(tmp_path):
    path, weights = tmp_path / "d", DenseNet(3).state_dict()
    norm = "stages.0.norm.weight" if "stages.0.norm.weight" in weights else next(iter(weights))
    longer, halves, broken = (dict(weights) for _ in range(3))
    longer[norm] = torch.ones(len(weights[norm]) + 1)
    halves[norm] = weights[norm].half()
    broken[norm] = torch.full_like(weights[norm], float("nan"))
    few = {name: tensor for name, tensor in weights.items() if name != norm}
    three, five = (DenseFaceMeta(tuple(letters), 100.0, 50.0) for letters in ("abc", "abcde"))
    wrong = DenseFaceMeta(tuple("abc"), 100.0, float("nan"))
    for held, meta, match in (
        (few, three, f"its {norm} is missing"),
        (weights | {"more": torch.ones(2)}, three, "its more is .2. float32, not"),
        (longer, three, f"its {norm} is .{len(longer[norm])}. float32, not"), (halves, three, "float16, not"),
        (broken, three, "numbers that are none"), (weights, five, "not .5"), (weights, wrong, "std"),
    ):  # fmt: skip
        save_denseface(path, held, meta)
        with pytest.raises(MemofastError, match=match) as raised:
            DenseFace(path)
        assert str(raised.value).count("\n") == 0


def test_validation_part_holds_every_class():
    labels = np.array([0] * 80 + [1] * 18 + [2] * 2)
    train, held = labelled_faces.stratified_parts(labels, 0.1, seed=0)
    assert np.bincount(labels[held]).tolist() == [8, 2, 1]
    assert sorted([*train, *held]) == list(range(100))
    np.testing.assert_array_equal(held, labelled_faces.stratified_parts(labels, 0.1, seed=0)[1])


def test_scores_of_a_known_matrix():
    scores = training.scores(np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]]))
    assert scores["accuracy"] == pytest.approx(0.85) and scores["recall"] == pytest.approx(0.85)
    assert scores["f1"] == pytest.approx((16 / 19 + 18 / 21) / 2)


def test_augmentation_keeps_the_middle_and_the_range():
    pixels = torch.zeros(32, 1, 64, 64)
    pixels[:, :, 24:40, 24:40] = 200
    moved = picture_schedule.augment(pixels, np.random.default_rng(0))
    assert moved.shape == pixels.shape and moved.min() >= 0 and moved.max() <= 200.01
    mass = moved.sum((1, 2, 3)) / pixels.sum((1, 2, 3))
    assert ((mass - 1).abs() < 0.05).all() and not torch.equal(moved[0], moved[1])


def test_resize():
    assert resize_faces(np.full((3, 48, 48), 77, np.uint8)).tolist() == np.full((3, 64, 64), 77).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [pytest.param(one, marks=[pytest.mark.campaign] if one == "original" else []) for one in training.RECIPES],
)
def test_training_writes_a_usable_file_and_resumes_to_the_same(recipe, faces, tmp_path, monkeypatch, capsys):
    whole = training.train_denseface(faces, tmp_path / "whole", options(epochs=2, recipe=recipe))
    assert "accuracy" in capsys.readouterr().out
    assert np.array(whole.validation["confusion"]).sum() == whole.validation["images"]
    assert len(whole.training["curve"]["epochs"]) == 2
    assert not (tmp_path / "whole.training").exists()
    step = training._Training._train_step

    def interrupted(self, chosen, done):
        if self.epoch == 1 and self.step == 1:
            raise KeyboardInterrupt
        return step(self, chosen, done)

    monkeypatch.setattr(training._Training, "_train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train_denseface(faces, tmp_path / "cut", options(epochs=2, recipe=recipe))
    monkeypatch.setattr(training._Training, "_train_step", step)
    assert not (tmp_path / "cut").exists()
    with pytest.raises(MemofastError, match="--restart"):
        training.train_denseface(faces, tmp_path / "cut", options(epochs=2, lr=0.2, recipe=recipe))
    again = training.train_denseface(faces, tmp_path / "cut", options(epochs=2, recipe=recipe))
    assert again.validation == whole.validation
    assert DenseFace(tmp_path / "cut").fingerprint == DenseFace(tmp_path / "whole").fingerprint


@pytest.mark.slow
def test_a_cycle_learns_what_is_easy_and_keeps_its_last_average(faces, tmp_path):
    meta = training.train_denseface(faces, tmp_path / "f", options(epochs=5, limit=0, batch=8, lr=0.05))
    curve = np.array(meta.training["curve"]["epochs"])
    assert meta.training["kept_epoch"] == 5 and curve[-1, 0] < curve[0, 0]
    assert curve[-1, 1] == meta.validation["accuracy"]


def test_pictures_grow_to_full_size():
    assert [picture_schedule.side_at(done) for done in (0.0, 0.59, 0.61, 0.81, 0.83, 1.0)] == [32, 32, 48, 48, 64, 64]

    def shares(epochs):
        full = picture_schedule.fullness(epochs / 34)
        sides = [picture_schedule.side_at(step / 1000, full) for step in range(1001)]
        assert sides == sorted(sides)
        return [sides.count(side) for side in (24, 32, 48, 64)]

    assert shares(8) == [258, 743, 0, 0] and shares(12) == [177, 693, 131, 0] and shares(50) == [0, 601, 220, 180]
    assert shares(17)[3] == 128
    pixels = torch.full((2, 1, 64, 64), 9.0)
    assert shrink(pixels, 64) is pixels
    torch.testing.assert_close(shrink(pixels, 32), torch.full((2, 1, 32, 32), 9.0))


def test_short_trainings_change_pictures_less():
    def moved(full):
        pixels = torch.zeros(64, 1, 64, 64)
        pixels[:, :, 31:33, 31:33] = 1.0
        seen = picture_schedule.augment(pixels, np.random.default_rng(0), full)[:, 0].sum(0)
        rows = seen.sum(1).nonzero()[:, 0]
        return 32 - rows.min().item(), rows.max().item() - 31

    assert all(8 <= most <= 10 for most in moved(1.0)) and all(4 <= most <= 6 for most in moved(0.5))


def test_the_average_reaches_back_a_fifth_of_the_steps_on_full_size_pictures():
    reached = [1 / (1 - picture_schedule.averaging_decay(full, steps)) for full, steps in ((0.5, 700), (1.0, 1400))]
    assert reached == pytest.approx([0.2 * 0.18 * 0.5 * 700, 0.2 * 0.18 * 1400])
    assert picture_schedule.averaging_decay(0.1, 3) == 0


@pytest.fixture
def one_thread():
    """More add up in another order, which a hundred norms enlarge to 2 % of a gradient."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_parts_of_a_batch_weigh_what_they_hold(one_thread, tmp_path):
    random = np.random.default_rng(1)
    images, labels = random.integers(0, 255, (57, 32, 32), dtype=np.uint8), np.arange(57) % 3
    data = labelled_faces.FaceData(images, labels, ("a", "b", "c"))
    run = training._Training(data, tmp_path / "o", options(batch=49, epochs=1))
    pixels, labels = torch.from_numpy(images[:49, None]).float(), torch.from_numpy(labels[:49])
    plain, total = copy.deepcopy(run.net).train(), 0.0
    for part in (slice(0, 25), slice(25, 49)):
        logits = plain((pixels[part] - run.mean) / run.std)[1]
        total = total + torch.nn.functional.cross_entropy(logits, labels[part], reduction="sum") / 49
    total.backward()
    with run._threads() as run.pool:
        loss = run._gradients(pixels, labels, 0.0)
    assert len(run.others) == 1 and loss == pytest.approx(float(total.detach()), rel=1e-5)
    far = [
        float((ours.grad - theirs.grad).norm() / theirs.grad.norm())
        for ours, theirs in zip(run.net.parameters(), plain.parameters(), strict=True)
    ]
    assert max(far) < 1e-4


def test_weights_are_the_same_on_any_number_of_threads(tmp_path):
    random = np.random.default_rng(1)
    images, labels = random.integers(0, 255, (60, 64, 64), dtype=np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "f.npz", images=images, labels=labels, classes=np.array(["a", "b", "c"]))
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            training.train_denseface(tmp_path / "f.npz", tmp_path / f"{number}", options(batch=48, limit=0))
            assert torch.get_num_threads() == number
            found.append(DenseFace(tmp_path / f"{number}").fingerprint)
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_crops_are_shrunk_to_the_side_that_was_learned(faces, tmp_path, capsys):
    meta = training.train_denseface(faces, tmp_path / "short", options(epochs=1))
    face = DenseFace(tmp_path / "short")
    assert meta.side == face.meta.side == 32 and "sees faces as 32 x 32 pixels" in capsys.readouterr().out
    crops = resize_faces(np.load(faces)["images"][:3])
    pixels = shrink(torch.from_numpy(crops)[:, None].float(), 32)
    with torch.inference_mode():
        expected = face._net((pixels - meta.mean) / meta.std)[0].numpy()
    np.testing.assert_allclose(face(crops)[0], expected, rtol=1e-5, atol=1e-6)
    save_denseface(tmp_path / "other", face._net.state_dict(), replace(meta, side=48))
    other = DenseFace(tmp_path / "other")
    assert other.fingerprint != face.fingerprint and not np.allclose(other(crops)[0], expected)


def test_copies_of_a_picture_are_left_out(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 255, (6, 48, 48), dtype=np.uint8)
    images = images[[0, 1, 0, 2, 3, 1, 4, 5]]
    np.savez(tmp_path / "f.npz", images=images, labels=np.arange(8) % 2, classes=np.array(["a", "b"]))
    read = labelled_faces.read_faces(tmp_path / "f.npz")
    assert len(read.images) == 6 and read.labels.tolist() == [0, 1, 1, 0, 0, 1]
    assert "2 of 8 images are copies" in capsys.readouterr().out


def test_data_that_cannot_be_trained_on(faces, tmp_path):
    with pytest.raises(MemofastError, match="no file"):
        labelled_faces.read_faces(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"words")
    with pytest.raises(MemofastError, match="not an npz"):
        labelled_faces.read_faces(tmp_path / "bad.npz")
    np.savez(tmp_path / "float.npz", images=np.zeros((2, 4, 4)), labels=np.zeros(2, int), classes=np.array(["a"]))
    with pytest.raises(MemofastError, match="uint8"):
        labelled_faces.read_faces(tmp_path / "float.npz")
    with pytest.raises(MemofastError, match="too few"):
        training.train_denseface(faces, tmp_path / "o", options(batch=64))
    with pytest.raises(MemofastError, match="--recipe"):
        training.train_denseface(faces, tmp_path / "o", options(recipe="new"))
    with pytest.raises(MemofastError, match="--precision"):
        training.train_denseface(faces, tmp_path / "o", options(precision="fp8"))
