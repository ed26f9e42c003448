"""Exercises that check the reader's answer: the committed stub, the solution, and typical mistakes."""

import ast

import nbformat
import pytest

from helpers import ROOT

ANSWERS = {"build_starnet_pose": "CoordinateAttention", "build_a_lifter": "p_mpjpe"}  # what the reader writes
SOLUTIONS = {"build_starnet_pose": "Solution", "build_a_lifter": "solution"}
MISTAKES = [  # lesson, a part of its solution, the wrong part, words of the message
    ("build_starnet_pose", ", bias=False", "", "another shape: conv_reduce.bias"),
    ("build_starnet_pose", "gate_h * gate_w", "gate_h", "a quarter of the input"),
    ("build_starnet_pose", "nn.init.zeros_(parameter)", "pass", "both gates must be 0.5"),
    ("build_starnet_pose", "x.mean(", "x.amax(", "maximum, not the mean"),
    ("build_starnet_pose", "self.bn(self.conv_reduce(u))", "self.conv_reduce(u)", "norm is not applied"),
    ("build_starnet_pose", "torch.relu(", "(", "the output differs"),
    ("build_starnet_pose", "columns.transpose(2, 3)]", "columns]", "RuntimeError"),
    ("build_a_lifter", "predicted - predicted.mean(-2, keepdim=True)", "predicted", "subtract the centers"),
    ("build_a_lifter", "scale[..., None, None] * a", "a", "is the scale missing?"),
    ("build_a_lifter", "d[..., 2] = torch.linalg.det(u @ v)", "pass", "exclude reflections"),
    ("build_a_lifter", "(u * d[..., None, :]) @ v", "u @ v.mT", "check the rotation"),
    ("build_a_lifter", "return mpjpe(", "return mpjpe(0.001 * ", "the truth itself has an error"),
    ("build_a_lifter", ", targets)", ", targets).mean()", "must be (8,)"),
]


def cells(lesson: str) -> list:
    return nbformat.read(ROOT / f"notebooks/learn/{lesson}.ipynb", as_version=4).cells


def source(lesson: str, tag: str) -> str:
    (cell,) = (cell for cell in cells(lesson) if tag in cell.metadata.get("tags", []))
    return cell.source


def is_definition(node: ast.stmt) -> bool:
    """Whether a statement imports, defines a function or class, or assigns constants in capitals."""
    if isinstance(node, ast.Assign):
        names = [
            leaf.id for target in node.targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)
        ]
        return all(name.isupper() for name in names)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def definitions(lesson: str) -> dict:
    """The namespace of a lesson in which nothing has been trained."""
    namespace: dict = {}
    for cell in cells(lesson):
        if cell.cell_type == "code":
            body = [node for node in ast.parse(cell.source).body if is_definition(node)]
            exec(compile(ast.Module(body, []), lesson, "exec"), namespace)
    return namespace


def checked(lesson: str, answer: str) -> str:
    """What the check of a lesson says of an answer, the text of the solution's definition."""
    namespace = definitions(lesson)
    tree = ast.parse(answer)
    exec(
        compile(ast.Module([node for node in tree.body if is_definition(node)], []), lesson, "exec"),
        namespace,
    )
    return namespace["check"](namespace[SOLUTIONS[lesson]])


@pytest.mark.parametrize("lesson", ANSWERS)
def test_committed_stub_is_not_solved_yet(lesson, capsys):
    exec(source(lesson, "check"), definitions(lesson))
    assert capsys.readouterr().out == "not solved yet\n"


@pytest.mark.parametrize("lesson", ANSWERS)
def test_solution_in_the_readers_cell_is_solved(lesson, capsys):
    namespace = definitions(lesson)
    exec(
        source(lesson, "solution").partition("\n\n\nassert")[0].replace(SOLUTIONS[lesson], ANSWERS[lesson]),
        namespace,
    )
    exec(source(lesson, "check"), namespace)
    assert capsys.readouterr().out.splitlines()[-1] == "solved"


@pytest.mark.parametrize("lesson, right, wrong, words", MISTAKES)
def test_mistake_is_named(lesson, right, wrong, words):
    solution = source(lesson, "solution")
    assert right in solution
    message = checked(lesson, solution.replace(right, wrong))
    assert message.startswith("wrong: ") and words in message


def test_exchanged_layers_are_named():
    solution = source("build_starnet_pose", "solution")
    exchanged = solution.replace("self.conv_h(", "self.?(").replace("self.conv_w(", "self.conv_h(")
    assert "exchanged" in checked("build_starnet_pose", exchanged.replace("self.?(", "self.conv_w("))
