"""`braid list` and `braid show`."""

from __future__ import annotations

from collections.abc import Sequence

from braid.errors import UsageError, unknown_name
from braid.methods.registry import catalogue

LIST_HELP = """\
usage: braid list [--family NAME] [--tasks]

What there is: every method with its paper, and the tasks they can be trained on.

options:
  --family NAME   only methods of this family
  --tasks         only the tasks
"""
SHOW_HELP = """\
usage: braid show METHOD

One method: its four strands, its hyper-parameters with default, unit and source, and its paper.
"""


def list_command(arguments: Sequence[str]) -> None:
    """Print the catalogue."""
    from rich.console import Console
    from rich.table import Table

    from braid.tasks import TASKS

    if {"-h", "--help"} & set(arguments):
        print(LIST_HELP)
        return
    rest = list(arguments)
    family = None
    if "--family" in rest:
        place = rest.index("--family")
        if place + 1 == len(rest):
            raise UsageError("--family needs a name")
        family = rest[place + 1]
        families = {entry.family for entry in catalogue().values()}
        if family not in families:
            raise unknown_name("family", family, families)
        del rest[place : place + 2]
    only_tasks = "--tasks" in rest
    unknown = [word for word in rest if word != "--tasks"]
    if unknown:
        raise UsageError(f"braid list does not know {unknown[0]!r}; see braid list --help")
    console = Console()
    if not only_tasks:
        table = Table("method", "family", "arXiv", "what it is", title="methods", title_justify="left")
        for entry in catalogue().values():
            if family in (None, entry.family):
                table.add_row(entry.slug, entry.family, entry.arxiv, entry.summary)
        console.print(table)
    tasks = Table("task", "what it is", title="tasks", title_justify="left")
    for name, place in TASKS.items():
        tasks.add_row(name, _task_summary(place))
    console.print(tasks)


def show_command(arguments: Sequence[str]) -> None:
    """Print one method."""
    from rich.console import Console
    from rich.table import Table

    from braid.methods.registry import find_method, parse_strands
    from braid.options import options_of

    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        if arguments and arguments[0] in ("-h", "--help"):
            print(SHOW_HELP)
            return
        raise UsageError("braid show needs one method; braid list shows them all")
    name = arguments[0]
    owner = find_method(name)
    docstring = (owner.__doc__ or "").strip()
    entry = catalogue().get(name)
    console = Console()
    console.print(f"[bold]{name}[/bold]" + (f"  {entry.title}" if entry else ""), highlight=False)
    if entry and entry.arxiv:
        console.print(f"https://arxiv.org/abs/{entry.arxiv}")
    console.print(f"\n{docstring.splitlines()[0] if docstring else ''}\n", highlight=False, markup=False)
    import inspect

    strands = Table("strand", "", title="strands", title_justify="left")
    for strand, text in parse_strands(inspect.cleandoc(owner.__doc__ or "")).items():
        strands.add_row(strand, text)
    console.print(strands)
    options = Table("option", "default", "unit", "what it is", "source", title="hyper-parameters", title_justify="left")
    for option in options_of(owner):
        options.add_row("--" + option.name.replace("_", "-"), str(option.default), option.unit, option.help, option.source)
    console.print(options)
    if owner.published:
        console.print("published runs: " + ", ".join(f"{k} {v}" for k, v in owner.published.items()), highlight=False)
    console.print(f"\nbraid train {name} --task arithmetic --steps 200", highlight=False, markup=False)


def _task_summary(place: str) -> str:
    """First sentence of a task's docstring, read from its source so that nothing heavy is imported."""
    import ast
    from pathlib import Path

    import braid

    module, _, class_name = place.partition(":")
    file = Path(braid.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return (ast.get_docstring(node) or "").split("\n", 1)[0]
    return ""
