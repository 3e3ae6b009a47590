import json

import numpy as np
import pytest
import torch
from tiny_models import save_speech_model, save_vit

from memofast.errors import MemofastError
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.prepare.faces.detection import Face, align, load_opencv
from memofast.prepare.faces.extractors import FaceChoice, open_face, parse_face
from memofast.prepare.faces.vision_model import FaceInput


def faces(count=5):
    rng = np.random.default_rng(0)
    box = np.array([0.0, 0.0, 40.0, 40.0])
    pictures = rng.integers(0, 255, (count, 128, 128, 3), dtype=np.uint8)
    return [Face(picture[::2, ::2, 0], 0.9, box, (box[:2], box[2:]), colour=picture) for picture in pictures]


def opened(text):
    return open_face(parse_face(text))


def test_choices():
    assert parse_face("none") is None
    assert parse_face("denseface=d").layers == ("last",)
    assert parse_face("denseface=a,b/d,layer=trans1+last").layers == ("trans1", "last")
    choice = parse_face("model=m,row=cls,labels=no")
    assert (choice.row, choice.labels, str(choice.path)) == ("cls", False, "m")
    for wrong in ("denseface", "vgg=x", "none=x", ""):
        with pytest.raises(MemofastError, match="--face is denseface=FILE, model=FOLDER, raw, frames or none"):
            parse_face(wrong)
    for wrong in ("denseface=d,layer=trans3", "denseface=d,layer=last+last", "model=m,row=x", "model=m,labels=1"):
        with pytest.raises(MemofastError, match="--face"):
            parse_face(wrong)


def test_denseface_rows_by_layer_and_pixels(tmp_path):
    save_denseface(tmp_path / "d", DenseNet(3).state_dict(), DenseFaceMeta(("a", "b", "c"), 100.0, 50.0))
    whole = opened(f"denseface={tmp_path / 'd'},layer=trans1+trans2+last")
    last = opened(f"denseface={tmp_path / 'd'}")
    rows, labels = whole(faces())
    assert rows.shape == (5, 216 + 300 + 342) and labels.shape == (5, 3)
    np.testing.assert_array_equal(rows[:, -342:], last(faces())[0])
    assert (last.name, whole.name) == ("denseface", "denseface layer trans1+trans2+last")
    own = open_face(FaceChoice("denseface", tmp_path / "d", pixels=(90.0, 40.0)))
    assert own.normalisation == "pixels (x - 90.0000) / 40.0000, of this corpus"
    assert not np.allclose(own(faces())[0], last(faces())[0])


def test_pixel_sums_are_exact():
    rows, labels = open_face(FaceChoice("pixels"))(faces())
    crops = np.stack([face.crop for face in faces()]).astype(np.float64)
    assert labels is None and rows.dtype == np.float32
    assert rows[:, 0].sum(dtype=np.float64) == crops.sum()
    assert rows.astype(np.float64)[:, 1:].sum(0) @ [4096, 1] == (crops**2).sum()


def test_rows_of_a_vision_model_are_those_of_transformers(tmp_path):
    from transformers import ViTModel

    folder = save_vit(tmp_path / "v")
    model = ViTModel.from_pretrained(folder).eval()
    pixels = FaceInput((32, 32), "bilinear", 1 / 255, (0.5,) * 3, (0.5,) * 3)(
        torch.from_numpy(np.stack([face.colour for face in faces()]))
    )
    with torch.no_grad():
        expected = model(pixels)
    extractor = opened(f"model={folder}")
    rows, labels = extractor(faces())
    np.testing.assert_allclose(rows, expected.pooler_output, atol=1e-5)
    assert labels is None and extractor.classes == () and extractor.name == "vit pooled"
    for row, values in (("cls", expected.last_hidden_state[:, 0]), ("mean", expected.last_hidden_state.mean(1))):
        chosen = opened(f"model={folder},row={row}")
        np.testing.assert_allclose(chosen(faces())[0], values, atol=1e-5)
        assert chosen.fingerprint != extractor.fingerprint and chosen.width == 16


def test_a_classifier_gives_soft_labels(tmp_path):
    from transformers import ViTForImageClassification

    folder = save_vit(tmp_path / "v", ("calm", "glad", "sad"))
    extractor = opened(f"model={folder}")
    rows, labels = extractor(faces(40))  # more than one batch
    assert extractor.name == "vit cls" and extractor.classes == ("calm", "glad", "sad")
    model = ViTForImageClassification.from_pretrained(folder).eval()
    pixels = extractor._input(torch.from_numpy(np.stack([face.colour for face in faces(40)])))
    with torch.no_grad():
        np.testing.assert_allclose(labels, model(pixels).logits.softmax(1), atol=1e-5)
        np.testing.assert_allclose(rows, model.vit(pixels).last_hidden_state[:, 0], atol=1e-5)
    without = opened(f"model={folder},labels=no")
    assert without.classes == () and without(faces())[1] is None
    np.testing.assert_allclose(without(faces())[0], rows[:5], atol=1e-5)


def test_a_pooler_drawn_at_random_is_never_used(tmp_path):
    folder = save_vit(tmp_path / "v", ("calm", "glad"))
    one, two = (opened(f"model={folder},labels=no") for _ in range(2))
    assert one.name == "vit cls" and one.fingerprint == two.fingerprint
    np.testing.assert_array_equal(one(faces())[0], two(faces())[0])
    with pytest.raises(MemofastError, match="gives no pooled row; it gives cls"):
        opened(f"model={folder},row=pooled,labels=no")


def test_convolutional_models_and_models_of_pictures_and_text(tmp_path):
    from transformers import CLIPConfig, CLIPModel, ConvNextConfig, ConvNextForImageClassification, ConvNextModel

    small = {"hidden_sizes": [4, 8, 8, 16], "depths": [1, 1, 1, 1], "image_size": 32}
    ConvNextModel(ConvNextConfig(**small)).save_pretrained(tmp_path / "c")
    pooled, mean = opened(f"model={tmp_path / 'c'}"), opened(f"model={tmp_path / 'c'},row=mean")
    assert pooled(faces())[0].shape == mean(faces())[0].shape == (5, 16)
    with pytest.raises(MemofastError, match="gives no cls row"):
        opened(f"model={tmp_path / 'c'},row=cls")
    ConvNextForImageClassification(ConvNextConfig(**small, num_labels=4)).save_pretrained(tmp_path / "l")
    assert opened(f"model={tmp_path / 'l'}")(faces())[1].shape == (5, 4)
    part = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision = part | {"image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=part, vision_config=vision)).save_pretrained(tmp_path / "p")
    assert opened(f"model={tmp_path / 'p'}")(faces())[0].shape == (5, 16)


def test_the_preprocessor_decides_size_and_normalisation(tmp_path):
    folder = save_vit(tmp_path / "v", num_channels=1, image_size=16)
    settings = {"size": {"height": 16, "width": 16}, "image_mean": [0.2], "image_std": [0.1], "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    extractor = opened(f"model={folder}")
    assert extractor._input == FaceInput((16, 16), "bicubic", 1 / 255, (0.2,), (0.1,))
    assert extractor(faces())[0].shape == (5, 16)
    grey = extractor._input(torch.full((1, 128, 128, 3), 51, dtype=torch.uint8))
    np.testing.assert_allclose(grey, np.zeros((1, 1, 16, 16)), atol=1e-3)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 24}, "do_normalize": False}))
    with pytest.raises(MemofastError, match="does not run on pictures of 24x24"):
        opened(f"model={folder}")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"longest": 24}}))
    with pytest.raises(MemofastError, match="not readable"):
        opened(f"model={folder}")


def test_models_that_see_no_pictures(tmp_path):
    folder = save_speech_model(tmp_path / "m", "wav2vec2")
    with pytest.raises(MemofastError, match="holds a wav2vec2 model, which sees no pictures"):
        opened(f"model={folder}")
    with pytest.raises(MemofastError, match="--face model needs a local folder"):
        opened(f"model={tmp_path / 'nowhere'}")


def test_colour_crops_show_what_grey_ones_do():
    cv2 = load_opencv()
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[:, :100] = (255, 0, 0)  # blue, as OpenCV orders colours
    picture[:, 100:] = (0, 0, 255)
    eyes = np.array([80.0, 90.0]), np.array([120.0, 90.0])
    colour, grey = align(cv2, picture, *eyes, 128, True), align(cv2, picture, *eyes)
    assert colour.shape == (128, 128, 3) and grey.shape == (64, 64)
    assert colour[64, 10].tolist() == [0, 0, 255] and colour[64, -10].tolist() == [255, 0, 0]
    np.testing.assert_allclose(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)[::2, ::2], grey, atol=20)


@pytest.mark.gpu
def test_rows_on_a_gpu(tmp_path):
    save_denseface(tmp_path / "d", DenseNet(3).state_dict(), DenseFaceMeta(("a", "b", "c"), 100.0, 50.0))
    for text in (f"denseface={tmp_path / 'd'}", f"model={save_vit(tmp_path / 'v', ('a', 'b'))}"):
        here, there = (open_face(parse_face(text), device) for device in ("cpu", "cuda"))
        for ours, theirs in zip(here(faces()), there(faces()), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
        assert np.array_equal(there(faces())[0], there(faces())[0])
