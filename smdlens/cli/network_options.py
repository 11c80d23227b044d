"""Options that name the network, whose graph tells which tensors are normalised."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_NETWORK = "The network (without it, names decide which tensors are normalised)"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PKG.MOD:FACTORY",
        help="The network: imported, called and traced. This runs your own code.",
        rich_help_panel=_NETWORK,
        show_default=False,
    ),
]
InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Shape of an input of the network, such as 2x3x224x224 or 2x16:int64. Repeatable.",
        rich_help_panel=_NETWORK,
        show_default=False,
    ),
]
InputFunction = Annotated[
    str | None,
    typer.Option(
        "--input-fn",
        metavar="PKG.MOD:FUNC",
        help="Function that returns (args, kwargs) for --model; runs your own code.",
        rich_help_panel=_NETWORK,
        show_default=False,
    ),
]
GraphFile = Annotated[
    Path | None,
    typer.Option(
        "--graph",
        metavar="FILE",
        help="A file that holds the network (.pt2, .onnx, .keras, ...); never run.",
        rich_help_panel=_NETWORK,
        show_default=False,
    ),
]
ModelOptional = Annotated[
    bool,
    typer.Option(
        "--model-optional",
        help="Go on from names where the network has no graph.",
        rich_help_panel=_NETWORK,
    ),
]
