"""edit.yaml: what it may hold, what it comes to, and what is said where it is wrong."""

from pathlib import Path

import pytest
import torch
from edited import COUNT, make_cloud, some_of

from feature_gs.editing import Cloud, operations
from feature_gs.editing import apply as apply_module
from feature_gs.editing.apply import Stage, apply
from feature_gs.editing.cleanup import CleanUp
from feature_gs.editing.edit import read_plan
from feature_gs.editing.feature3dgs import chosen_as_feature_3dgs
from feature_gs.editing.plan import KINDS, Plan
from feature_gs.editing.questions import selection_file
from feature_gs.errors import UserError
from feature_gs.gaussians.sh import SH_C0

pytestmark = pytest.mark.usefixtures("one_thread")


def plan_of(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "edit.yaml"
    path.write_text(text)
    return read_plan(path)


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(UserError) as error:
        plan_of(tmp_path, text)
    return str(error.value).replace(str(tmp_path), "")


def carried_out(plan: Plan, stage: Stage) -> Stage:
    for step in plan.steps:
        stage = apply(stage, step, lambda step: make_cloud(7)[0])
    return stage


EVERYTHING = """
selections:
  mug: {text: "mug, cup", negative_text: [table], threshold: 0.6, smooth: 8, largest_cluster: true,
        drop_hidden: 0.3}
  ball: {point: [120, 80], view: 008.png}
  box: {box: [1, 2, 30, 40], view: 008}
edits:
  - recolour: mug
    to: red
  - recolour: ball
    channels: [2, 1, 0]
  - recolour: box
    matrix: [[1, 0, 0], [0, 0.5, 0], [0, 0, 1e-1]]
    offset: [0, 0.1, 0]
  - opacity: mug
    factor: 0.5
  - translate: mug
    by: [0, 0, 1]
  - rotate: all
    axis: z
    degrees: 90
    about: [0, 0, 0]
  - scale: queries-name
    factor: 2
  - duplicate: ball
    as: twin
  - insert: path/to/model
    as: guest
    selection: thing
  - delete: twin
  - extract: {patch: [10, 20, 8], view: 001.png, smooth: 3}
"""


def test_everything_that_is_offered_is_read(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, EVERYTHING)
    assert {step.kind for step in plan.steps} == set(KINDS)
    assert [step.group for step in plan.steps][:8] == [
        *("mug", "ball", "box", "mug", "mug", "all", "queries-name", "ball"),
    ]
    mug = plan.questions["mug"]
    assert mug.asked == {"text": ["mug", "cup"], "negative_text": ["table"]}
    assert mug.clean_up == CleanUp(smooth=8, threshold=0.6, largest_cluster=True, drop_hidden=0.3)
    assert plan.questions["ball"].asked == {"point": [(120, 80)], "negative_point": [], "view": "008.png"}
    assert plan.questions["queries-name"].asked == {"name": "queries-name"}
    assert plan.questions[plan.steps[-1].group].kind == "patch"
    insert = plan.steps[8]
    assert (insert.model, insert.name, insert.part) == (Path("path/to/model"), "guest", "thing")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("edits: []\nextra: 1", 2, "extra has no meaning"),
        ("selection: {}\nedits: []", 1, "did you mean selections"),
        ("edits:\n - delete: a\n   as: b", 3, "as has no meaning"),
        ("edits:\n - remove: a", 2, "takes one of delete"),
        ("edits:\n - rotated: a", 2, "Did you mean rotate"),
        ("edits:\n - delete: a\n   extract: a", 2, "delete and extract"),
        ("edits:\n - rotate: a\n   axis: w\n   degrees: 3", 3, "axis must be a list of 3 numbers"),
        ("edits:\n - rotate: a\n   axis: [0, 0, 0]\n   degrees: 3", 3, "not be zero"),
        ("edits:\n - rotate: a\n   axis: z\n   degrees: ninety", 4, "degrees must be a number, got 'ninety'"),
        ("edits:\n - rotate: a\n   axis: z", 2, "degrees is missing"),
        ("edits:\n - scale: a\n   factor: 0", 3, "factor must be a number from 1e-06"),
        ("edits:\n - scale: a\n   factor: true", 3, "got True"),
        ("edits:\n - translate: a\n   by: [1, 2]", 3, "a list of 3 numbers"),
        ("edits:\n - recolour: a\n   to: reddish", 3, "no colour 'reddish'"),
        ("edits:\n - recolour: a", 2, "takes one of to, channels, matrix"),
        ("edits:\n - recolour: a\n   channels: [0, 1, 3]", 3, "0, 1 or 2"),
        ("edits:\n - recolour: a\n   matrix: [[1, 0, 0]]", 3, "3 lists of 3 numbers"),
        ("edits:\n - opacity: a\n   factor: -1", 3, "from 0 to 1000"),
        ("edits:\n - duplicate: a", 2, "as is missing"),
        ("edits:\n - duplicate: a\n   as: all", 3, "all is taken"),
        ("edits:\n - duplicate: a\n   as: b\n - insert: m\n   as: b", 5, "b is taken"),
        ("edits:\n - delete: {text: a, point: [1, 2]}", 2, "text and point"),
        ("edits:\n - delete: {point: [1, 2]}", 2, "view is missing"),
        ("edits:\n - delete: {point: [[1, 2], [3]], view: a}", 2, "lists of 2 numbers"),
        ("edits:\n - delete: {text: a, smooth: 0}", 2, "smooth must be a whole number from 1"),
        ("edits:\n - delete: {text: a, largest_cluster: 1}", 2, "true or false"),
        ("edits:\n - delete: [a]", 2, "followed by what is meant"),
        ("selections:\n  all: {text: a}\nedits: []", 2, "choose another name"),
        ("selections: [a]\nedits: []", 1, "names with their queries"),
        ("edits: delete", 1, "must be a list"),
        ("edits:\n - delete", 1, "begins with"),
        ("selections: {}", 1, "edits is missing"),
        ("edits:\n - delete: *a", 2, "aliases"),
        ("edits: []\nedits: []", 2, "there twice"),
        ("edits: !!python/object/apply:os.getcwd []", 1, "tag"),
        ("edits:\n - delete: !!bool foo", 2, "'foo' is no bool"),
        ('edits:\n - delete: !!int ""', 2, "'' is no int"),
        ("edits:\n - delete: !!timestamp foo", 2, "'foo' is no timestamp"),
        ("edits:\n - delete: !!float foo", 2, "'foo' is no float"),
        ("edits:\n - delete: 2001-99-99", 2, "put it in quotes"),
        ("edits:\n - !!map [a]", 2, "needs keys and values"),
        ("!!map [a]", 1, "needs keys and values"),
        ("edits:\n - delete: {point: [1], view: a}", 2, "line 2: delete: point must be a list of 2 numbers"),
        (
            "selections:\n  a: {text: b, smooth: 1001}\nedits: []",
            2,
            "selections a: smooth must be a whole number",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, line: int, problem: str) -> None:
    said = complaint(tmp_path, text)
    assert f"edit.yaml, line {line}: " in said
    assert problem in said


def test_what_is_no_yaml_is_said(tmp_path: Path) -> None:
    assert "must hold keys" in complaint(tmp_path, "- a")
    assert "line 2" in complaint(tmp_path, "edits: [\n}")
    assert "larger than 1 MiB" in complaint(tmp_path, "#" * (1 << 20) + "\n")
    with pytest.raises(UserError, match="cannot read"):
        read_plan(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="no YAML|cannot"):
        read_plan(tmp_path / "binary.yaml")
    assert "YAML" in complaint(tmp_path, "[" * 5000)
    assert "YAML" in complaint(tmp_path, 'edits: "\\UFFFFFFFF"')


def test_selections_move_along_and_copies_have_their_own_name(tmp_path: Path) -> None:
    cloud, _ = make_cloud()
    some, others = some_of(cloud, 0), some_of(cloud, 1)
    plan = plan_of(
        tmp_path,
        "edits:\n - delete: others\n - duplicate: some\n   as: twin\n - translate: twin\n   by: [10, 0, 0]\n"
        " - recolour: some\n   matrix: [[0, 0, 0], [0, 0, 0], [0, 0, 0]]",
    )
    done = carried_out(plan, Stage(cloud, {"some": some, "others": others})).cloud
    left, kept = int((~others).sum()), some & ~others
    assert len(done) == left + int(kept.sum())
    assert torch.equal(done.model.means[:left], cloud.model.means[~others])
    twins = cloud.take(kept)
    assert torch.allclose(done.model.means[left:], twins.model.means + torch.tensor([10.0, 0, 0]))
    assert torch.equal(done.model.sh_dc[left:], twins.model.sh_dc)  # the copy was not recoloured
    assert torch.allclose(done.model.sh_dc[:left][some[~others]], torch.tensor(-0.5 / SH_C0))
    assert done.field is not None and twins.field is not None
    assert torch.equal(done.field.features[left:], twins.field.features)


def test_the_order_of_operations_counts(tmp_path: Path) -> None:
    cloud, _ = make_cloud()
    some = some_of(cloud)
    move = " - translate: some\n   by: [1, 0, 0]\n"
    grow = " - scale: some\n   factor: 2\n   about: [0, 0, 0]\n"
    first, second = (
        carried_out(plan_of(tmp_path, f"edits:\n{edits}"), Stage(cloud, {"some": some})).cloud.model.means
        for edits in (move + grow, grow + move)
    )
    assert torch.allclose((first - second)[some], torch.tensor([1.0, 0, 0]), atol=1e-5)
    assert torch.equal(first[~some], second[~some])


def test_what_is_gone_cannot_be_edited_and_something_must_be_left(tmp_path: Path) -> None:
    cloud, _ = make_cloud()
    stage = Stage(cloud, {"some": some_of(cloud)})
    with pytest.raises(UserError, match="line 3: opacity: the selection some holds no Gaussian"):
        carried_out(plan_of(tmp_path, "edits:\n - delete: some\n - opacity: some\n   factor: 2"), stage)
    with pytest.raises(UserError, match="nothing would be left"):
        carried_out(plan_of(tmp_path, "edits:\n - delete: all"), stage)
    with pytest.raises(UserError, match="numbers grow"):
        carried_out(
            plan_of(
                tmp_path,
                "edits:\n - translate: all\n   by: [1e30, 0, 0]\n" * 1
                + " - scale: all\n   factor: 1e6\n   about: [0, 0, 0]\n" * 2,
            ),
            stage,
        )


def test_copies_and_guests_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, _ = make_cloud()
    doubled = "edits:\n" + "".join(f" - duplicate: all\n   as: b{i}\n" for i in range(3))
    monkeypatch.setattr(apply_module, "_MOST_GAUSSIANS", 4 * COUNT)
    whole = carried_out(
        plan_of(tmp_path, doubled.replace(" - duplicate: all\n   as: b2\n", "")), Stage(cloud, {})
    )
    assert len(whole.cloud) == 4 * COUNT
    plan, extract, taken = plan_of(tmp_path, doubled), operations.extract, []

    def watched(cloud: Cloud, selected: torch.Tensor) -> Cloud:
        taken.append(len(cloud))
        return extract(cloud, selected)

    monkeypatch.setattr(operations, "extract", watched)
    with pytest.raises(
        UserError, match="line 6: duplicate: 1,200 Gaussians and 1,200 more would be above 1,200"
    ):
        carried_out(plan, Stage(cloud, {}))
    assert taken == [COUNT, 2 * COUNT]  # the third is refused before it takes memory
    with pytest.raises(UserError, match="line 2: insert: 1,200 Gaussians and 300 more"):
        carried_out(plan_of(tmp_path, "edits:\n - insert: model"), whole)


THEIRS = """edit:
  objects: ["car", "tree", "road"]
  operations: "{operations}"
  targets: "car, tree"
  threshold: {threshold}
"""


def test_files_of_feature_3dgs_are_understood(tmp_path: Path) -> None:
    text = THEIRS.format(operations="color_func, deletion", threshold="0.198")
    plan = plan_of(tmp_path, text + '  colorFunc: "lambda color: color[..., [2,1,0]]" # swap\n')
    assert [step.kind for step in plan.steps] == ["delete", "recolour"]
    for step, generous in zip(plan.steps, (True, False), strict=True):
        asked = plan.questions[step.group].asked
        assert asked["objects"] == ["car", "tree", "road"] and asked["targets"] == ["car", "tree"]
        assert asked["threshold"] == 0.198 and asked["generous"] == generous
    cloud, _ = make_cloud()
    change = plan.steps[1].change
    assert change is not None
    after = change(cloud, torch.ones(len(cloud), dtype=torch.bool))
    assert torch.equal(after.model.sh_rest, cloud.model.sh_rest.flip(2))
    plan = plan_of(tmp_path, THEIRS.format(operations="extraction", threshold=""))
    (step,) = plan.steps
    assert step.kind == "extract" and plan.questions[step.group].asked["threshold"] is None


@pytest.mark.parametrize(
    "function",
    [
        "lambda color: color * 2",
        "__import__('os').system('true')",
        "lambda color: color[..., [2,1,__import__('os')]]",
        "lambda color: other[..., [2,1,0]]",
    ],
)
def test_other_programs_of_feature_3dgs_are_refused_and_never_run(tmp_path: Path, function: str) -> None:
    text = THEIRS.format(operations="color_func", threshold="0.2")
    said = complaint(tmp_path, f'{text}  colorFunc: "{function}"\n')
    assert "line 6: edit: colorFunc is a program" in said and "channels: [2, 1, 0]" in said


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("car, tree", "bus"), "'bus' is none of the objects"),
        (("extraction", "explosion"), "no operation 'explosion'"),
        (("0.2", "high"), "threshold must be a number"),
        (('["car", "tree", "road"]', "[car]"), "'tree' is none"),
        (("objects", "things"), "objects is missing"),
        (("extraction", "color_func"), "needs a colorFunc"),
    ],
)
def test_faults_of_such_files_are_named(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    text = THEIRS.format(operations="extraction", threshold="0.2").replace(*change)
    assert problem in complaint(tmp_path, text)


def test_feature_3dgs_selects_by_the_softmax_of_plain_cosines() -> None:
    cosines = torch.tensor([[0.30, 0.20, 0.10], [0.10, 0.30, 0.25], [0.2, 0.1, 0.3]])
    shares = cosines.softmax(dim=1)
    objects = ["car", "tree", "road"]
    found = chosen_as_feature_3dgs(cosines, objects, ["car"], None, False)
    assert found.selected.tolist() == [True, False, False]
    assert torch.allclose(found.scores, shares[:, 0])
    threshold = float(shares[2, 0]) - 1e-4  # between the third and the second
    found = chosen_as_feature_3dgs(cosines, objects, ["car"], threshold, False)
    assert found.selected.tolist() == [True, False, True]
    two = chosen_as_feature_3dgs(cosines, objects, ["car", "road"], None, False)
    assert torch.allclose(two.scores, shares[:, [0, 2]].sum(1)) and two.selected.all()
    # Deletion takes what is likeliest a target even below the threshold, counted once.
    assert chosen_as_feature_3dgs(cosines, objects, ["car"], 0.9, True).selected.tolist() == [
        True,
        False,
        False,
    ]
    one = chosen_as_feature_3dgs(cosines[:, :1], ["car"], ["car"], 0.2, True)
    assert one.selected.tolist() == [True, False, True]


def test_a_selection_with_a_name_longer_than_files_have_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no selection"):
        selection_file(tmp_path, "a" * 5000)
