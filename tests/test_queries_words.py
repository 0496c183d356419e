"""Words put to a scene whose kinds have names."""

from dataclasses import replace

import pytest
import torch
from things import FLOOR, Things, make_things, small_decoder

from feature_gs.errors import UserError
from feature_gs.queries.in_view import rendered_map
from feature_gs.queries.words import CANONICAL, Words, ask_text, ask_words, labels_of, words_in_view

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scene() -> Things:
    return make_things()


def test_probabilities_are_a_softmax_at_the_temperature(scene: Things) -> None:
    words = Words.encode(scene.field, ["red"], ["green"], temperature=0.1)
    shares = words.probabilities(torch.tensor([[0.3, 0.2], [0.0, 0.5]]))
    assert shares[0].tolist() == pytest.approx([2.718281828 / 3.718281828, 1 / 3.718281828])
    assert shares.sum(dim=1).tolist() == pytest.approx([1, 1])
    assert shares[1, 1] > 0.99


def test_each_teacher_has_its_temperature(scene: Things) -> None:
    assert Words.encode(scene.field, ["red"]).temperature == 0.01
    words = Words.encode(scene.field, ["red"], temperature=0.5)
    assert words.temperature == 0.5 and words.about()["temperature"] == 0.5


def test_one_word_has_negatives_of_its_own_and_several_have_none(scene: Things) -> None:
    assert Words.encode(scene.field, ["red"]).negatives == CANONICAL
    assert Words.encode(scene.field, ["texture"]).negatives == CANONICAL[:3]
    assert Words.encode(scene.field, ["red", "green"]).negatives == ()
    assert Words.encode(scene.field, ["red"], []).negatives == ()


def test_labels_count_from_1_and_negatives_are_0() -> None:
    shares = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    assert labels_of(shares, 2).tolist() == [1, 2, 0]
    assert labels_of(shares, 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["none", "linear"])
def test_gaussians_get_the_word_of_their_kind(kind: str) -> None:
    scene = make_things(decoder=small_decoder(kind) if kind == "linear" else None)
    whole, parts = ask_words(scene.field, Words.encode(scene.field, ["blue", "red"], ["floor", "green"]))
    assert set(parts) == {"blue", "red"}
    for name, label in (("red", 1), ("blue", 3)):
        assert torch.equal(parts[name].selected, scene.labels == label)
        assert (parts[name].scores[scene.labels == label] > 0.9).all()
        assert parts[name].query["part"] == name
    assert torch.equal(whole.selected, (scene.labels == 1) | (scene.labels == 3))
    torch.testing.assert_close(whole.scores, parts["red"].scores + parts["blue"].scores)


def test_a_negative_word_takes_away_what_it_means(scene: Things) -> None:
    everything = ask_text(scene.field, ["red", "floor"])
    assert everything.selected.all()  # every Gaussian is likeliest one of them
    assert torch.equal(ask_text(scene.field, ["red"], ["floor", "green", "blue"]).selected, scene.labels == 1)


def test_what_no_view_shows_is_no_word(scene: Things) -> None:
    seen = scene.labels != FLOOR
    selection = ask_text(replace(scene.field, seen=seen), ["floor", "red"])
    assert not selection.selected[~seen].any() and not selection.scores[~seen].any()


def test_pixels_get_the_word_of_what_they_show(scene: Things) -> None:
    camera = scene.camera(3)
    words = Words.encode(scene.field, ["red", "green", "blue"], ["floor"])
    labels, shares = words_in_view(rendered_map(scene.trained, scene.field, camera), words)
    for number in (1, 2, 3):
        true = scene.pixels(number, camera)
        assert ((labels == number) & true).sum() / ((labels == number) | true).sum() > 0.9
    sky = scene.trained.render(camera).alpha[0] < 0.3
    assert sky.any() and not labels[sky].any()
    assert ((shares > 0.249) & (shares < 1.001)).all()


@pytest.mark.parametrize(
    ("names", "negatives", "message"),
    [
        ([], None, "expected words"),
        (["red", "red"], None, "each once"),
        (["red"], ["red"], "each once"),
        (["red", " "], None, "expected words"),
    ],
)
def test_words_must_be_there_and_differ(
    scene: Things, names: list[str], negatives: list[str] | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Words.encode(scene.field, names, negatives)


def test_words_must_be_of_the_fields_own_teacher(scene: Things) -> None:
    with pytest.raises(UserError, match="knows no words"):
        Words.encode(replace(scene.field, teacher="handcrafted"), ["red"])
    short = make_things(decoder=small_decoder("linear"))
    decoder = short.field.decoder
    narrow = replace(short.field, decoder=decoder)
    narrow.decoder.channels = 9
    with pytest.raises(UserError, match="8 channels, the model's features 9"):
        Words.encode(narrow, ["red"])
