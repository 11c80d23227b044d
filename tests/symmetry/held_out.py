"""The held-out corpus: every network built, measured, added up.

python tests/symmetry/held_out.py [--out RECORDS.jsonl] [--part 0/2] [NAME ...]
"""

import argparse
import json
import signal
import sys
import warnings
from pathlib import Path

import published_text
import published_vision
import strangers_attention
import strangers_backbones
import strangers_convolutional
import strangers_cosine
import strangers_normalised
import strangers_sequences
import torch
from published import PUBLISHED
from strangers import NETS
from symmetry_measure import measured

_ENTERED = (published_text, published_vision, strangers_attention, strangers_backbones,
            strangers_convolutional, strangers_cosine, strangers_normalised,
            strangers_sequences)  # fmt: skip
HELD_OUT = {**NETS, **PUBLISHED}
LIMIT_S = 900


def record(name):
    """The measurement of one network, or what went wrong."""
    half = "written" if name in NETS else "published"

    def too_slow(*_):
        raise TimeoutError(f"more than {LIMIT_S} s")

    signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(LIMIT_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, inputs, options = HELD_OUT[name]()
            found = measured(model, inputs, options)
    except Exception as error:
        found = {"unmeasured": f"{type(error).__name__}: {str(error)[:300]}"}
    finally:
        signal.alarm(0)
    return {"name": name, "half": half, **found}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", default="0/1", help="which of how many interleaved parts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = map(int, arguments.part.split("/"))
    names = arguments.names or list(HELD_OUT)[part::parts]
    for name in names:
        line = json.dumps(record(name))
        if arguments.out is None:
            sys.stdout.write(line + "\n")
        else:
            with arguments.out.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
