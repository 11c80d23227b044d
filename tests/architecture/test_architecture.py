"""The house rules of the package, read off its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "smdlens"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 300

# Left may import right, never the other way.
ROOMS = ("cli", "api", "report", "diagnosis", "motion", "symmetry", "hyper", "snapshots",
         "containers")  # fmt: skip
GROUND = {"errors", "vocabulary", "names", "atomic", "version", "config", "wording"}
# Top-level modules that are doors rather than rooms: what they may import at import time.
API = {"__init__", "checkpoint", "options", "__main__"}
HEAVY = {"torch", "polars", "numpy", "matplotlib", "jinja2"}
TORCH_ROOMS = ("smdlens/motion/", "smdlens/symmetry/")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def room_of(module):
    """Room of a dotted module name of ours: `smdlens.hyper.rates` -> hyper."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] in API:
        return "api"
    return parts[1]


def module_of(path):
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree, *, inside_functions=True):
    """(imported module, line) pairs; `from x import y` is x.y where that is a module of ours."""
    for node, deep in walk(tree):
        if deep and not inside_functions:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                is_module = (ROOT / dotted.replace(".", "/")).with_suffix(".py").exists()
                yield dotted if is_module else node.module, node.lineno


def walk(tree, deep=False):
    """Every node with whether it runs only later: inside a function, or for type checkers."""
    for node in ast.iter_child_nodes(tree):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = (
            isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        )
        yield node, deep
        yield from walk(node, deep or later or typing)


@pytest.fixture(scope="module")
def trees():
    return {path: ast.parse(path.read_text(), str(path)) for path in FILES}


def test_there_is_something_to_look_at():
    assert len(FILES) > 80
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert rooms >= set(ROOMS) - {"api"}


def test_imports_run_one_way(trees):
    wrong = []
    for path, tree in trees.items():
        own = "cli" if path.name == "__main__.py" else room_of(module_of(path))
        for module, line in imports(tree):
            if not module.startswith("smdlens"):
                continue
            other = room_of(module)
            if own == other or other in GROUND:
                continue
            # Every room may use theory/ and read who we are.
            if other == "theory" and own not in GROUND:
                continue
            if own in ROOMS and other in ROOMS and ROOMS.index(other) > ROOMS.index(own):
                continue
            wrong.append(f"{name_of(path)}:{line} imports {module}")
    assert wrong == []


def test_every_module_belongs_to_a_room():
    known = {*ROOMS, *GROUND, "theory"}
    strange = [name_of(p) for p in FILES if room_of(module_of(p)) not in known]
    assert strange == []


def test_the_ground_floor_imports_only_itself_and_the_standard_library(trees):
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path, tree in trees.items()
        if room_of(module_of(path)) in GROUND
        for module, line in imports(tree)
        if module.split(".")[0] not in sys.stdlib_module_names
        and not (module.startswith("smdlens") and room_of(module) in GROUND)
    ]
    assert wrong == []


def test_theory_imports_numpy_and_nothing_of_ours(trees):
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path, tree in trees.items()
        if room_of(module_of(path)) == "theory"
        for module, line in imports(tree)
        if module.split(".")[0] not in {*sys.stdlib_module_names, "numpy"}
        and not module.startswith("smdlens.theory")
    ]
    assert wrong == []


def test_torch_is_imported_in_few_rooms_and_elsewhere_lazily(trees):
    wrong = [
        f"{name_of(path)}:{line}"
        for path, tree in trees.items()
        if not name_of(path).startswith(TORCH_ROOMS)
        for module, line in imports(tree, inside_functions=False)
        if module.split(".")[0] == "torch"
    ]
    assert wrong == []


def test_reading_files_needs_no_torch(trees):
    """Untrusted bytes never meet a framework that could run them."""
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path, tree in trees.items()
        if room_of(module_of(path)) in ("containers", "snapshots", "hyper")
        for module, line in imports(tree)
        if module.split(".")[0] in ("torch", "pickle", "marshal", "shelve", "dill", "joblib",
                                    "cloudpickle", "safetensors", "ctypes", "mmap", "runpy")
    ]  # fmt: skip
    assert wrong == []


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_only_report_and_cli_print(trees):
    wrong = [
        f"{name_of(path)}:{node.lineno} {function}"
        for path, tree in trees.items()
        if room_of(module_of(path)) not in ("report", "cli")
        for function, node in calls(tree)
        if function in ("print", "pprint", "sys.stdout.write", "sys.stderr.write")
    ]
    assert wrong == []


_WRITES = {"write_text", "write_bytes", "touch", "mkdir", "makedirs", "rename", "replace_file",
           "unlink", "rmdir", "rmtree", "symlink_to", "hardlink_to", "chmod",
           "truncate"}  # fmt: skip


def writes(function, node):
    """Whether a call opens for writing, or changes the file system in another way."""
    last = function.rsplit(".", 1)[-1]
    if last in ("open", "fdopen") and function not in ("webbrowser.open", "zipfile.open"):
        place = 0 if function.endswith(".open") and not function.startswith(("os.", "io.")) else 1
        given = node.args[place : place + 1]
        modes = [*given, *(k.value for k in node.keywords if k.arg in ("mode", "flags"))]
        for mode in modes:
            text = ast.unparse(mode)
            if any(flag in text for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")):
                return "devnull" not in ast.unparse(node)
            letters = set(mode.value) if isinstance(getattr(mode, "value", None), str) else set()
            if letters <= set("rwxabt+U") and letters & set("wxa+"):
                return True
        return False
    if function in ("os.rename", "os.replace", "os.remove", "os.unlink", "os.mkdir",
                    "os.makedirs", "os.rmdir", "os.truncate", "shutil.rmtree", "shutil.move",
                    "shutil.copy", "shutil.copyfile", "tempfile.mkstemp", "tempfile.mkdtemp",
                    "tempfile.NamedTemporaryFile", "tempfile.TemporaryFile"):  # fmt: skip
        return True
    # polars and numpy have writers of their own; into a buffer they are no files.
    if last in ("write_parquet", "write_csv", "write_ipc", "savefig", "savez", "tofile"):
        target = node.args[0] if node.args else None
        return target is not None and not _is_buffer(target)
    return last in _WRITES and "." in function and not function.startswith("atomic.")


def _is_buffer(target):
    return isinstance(target, ast.Name) and "buffer" in target.id


def test_one_module_writes_files(trees):
    wrong = [
        f"{name_of(path)}:{node.lineno} {ast.unparse(node)[:80]}"
        for path, tree in trees.items()
        if name_of(path) != "smdlens/atomic.py"
        for function, node in calls(tree)
        if writes(function, node)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("open('x', 'w')", True),
        ("open('x')", False),
        ("open('x', 'rb')", False),
        ("path.open(mode='ab')", True),
        ("os.open(p, os.O_RDONLY)", False),
        ("os.open(p, os.O_WRONLY | os.O_CREAT)", True),
        ("path.write_text('x')", True),
        ("atomic.write_bytes(p, b'')", False),
        ("frame.write_csv('x.csv')", True),
        ("frame.write_csv()", False),
        ("text.replace('a', 'b')", False),
    ],
)
def test_the_test_for_writing_sees_writing(source, found):
    ((function, node),) = calls(ast.parse(source))
    assert writes(function, node) is found


_FORBIDDEN = {"eval", "exec", "compile", "__import__", "torch.load", "pickle.load", "pickle.loads",
              "numpy.load", "np.load", "mmap.mmap", "os.system", "os.popen"}  # fmt: skip


def test_nothing_is_run_or_unpickled(trees):
    wrong = [
        f"{name_of(path)}:{node.lineno} {function}"
        for path, tree in trees.items()
        for function, node in calls(tree)
        if function in _FORBIDDEN or function.startswith(("subprocess.", "socket.", "urllib."))
    ]
    assert wrong == []


def test_files_stay_short():
    long = {name_of(p): n for p in FILES if (n := len(p.read_text().splitlines())) > MOST_LINES}
    assert long == {}


def test_every_module_says_what_it_is_for(trees):
    silent = [
        name_of(path)
        for path, tree in trees.items()
        if not ast.get_docstring(tree) and path.name not in ("__init__.py", "version.py")
    ]
    assert silent == []


def test_no_leftovers():
    marks = ("TODO", "FIXME", "XXX", "HACK", "breakpoint()")
    wrong = [
        f"{name_of(path)}: {mark}" for path in FILES for mark in marks if mark in path.read_text()
    ]
    assert wrong == []


def heavy_after(program):
    done = subprocess.run(
        [sys.executable, "-c", program + f"\nprint(sorted({HEAVY!r} & set(sys.modules)))"],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "program",
    [
        "import sys, smdlens",
        "import sys, smdlens.cli.app",
        "import sys, smdlens; smdlens.analyze; smdlens.open_series; smdlens.errors",
        "import sys, smdlens.vocabulary, smdlens.atomic, smdlens.names, smdlens.options",
    ],
)
def test_importing_the_package_is_cheap(program):
    assert heavy_after(program) == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["analyze", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    program = (
        "import sys\nfrom smdlens.cli.app import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass"
    )
    assert heavy_after(program) == "[]"
