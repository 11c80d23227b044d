"""Scale groups from names, shapes and running statistics, when there is no graph at hand.

A batch norm is recognised by its running statistics. The weight in front of it is found by, in
this order: sibling names that pair (`conv1`/`bn1`), the entry before it in an indexed sequence
(`0`/`1`), and the weight registered directly before it. How often that is right was measured on the
held-out corpus (docs/symmetry.md; weights of two or more dimensions); norms without running
statistics, weight standardisation and pre-activation orders are what it misses. It is always
labelled `names`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from smdlens.snapshots.records import MEASURED_DTYPES, TensorRef
from smdlens.symmetry.modules import Module, is_sorted_file, modules_of, natural_key
from smdlens.symmetry.records import Evidence, NormBehind, ScaleGroups, TensorSymmetry
from smdlens.vocabulary import EvidenceKind, Granularity, Role

MEASURED = "precision 0.93, recall 0.69 on 230 networks"
_NORM_WORD = re.compile(r"(batch_?norm|normali[sz]ation|norm|bn)", re.IGNORECASE)
_WEIGHT_WORDS = ("conv", "convolution", "linear", "fc", "dense", "proj", "dw", "pw", "dwconv", "")


def scale_groups_from_names(tensors: Mapping[str, TensorRef]) -> ScaleGroups:
    """Role of every parameter of a weight tree, by its name and shape.

    Args:
        tensors: Canonical names -> refs, in file order.

    Returns:
        Every floating tensor that is not a running statistic; `source` is "names".
    """
    modules = modules_of(tensors)
    by_path = {module.path: module for module in modules}
    found: dict[str, TensorSymmetry] = {}
    for weight_module, norm_module, reason in _batch_norm_pairs(tensors, modules, by_path):
        for symmetry in _behind_batch_norm(weight_module, norm_module, reason):
            found.setdefault(symmetry.name, symmetry)
    for module in modules:
        for symmetry in (*_weight_norm(module), *_query_key_norm(module, by_path)):
            found.setdefault(symmetry.name, symmetry)
    classifier = _classifier(modules, found)
    for name, ref in tensors.items():
        if ref.dtype not in MEASURED_DTYPES or _is_statistic(name):
            continue
        if name not in found:
            found[name] = _rest(name, ref, name.rpartition(".")[0] == classifier)
    ordered = {name: found[name] for name in tensors if name in found}
    return ScaleGroups(ordered, source="names")


def _is_statistic(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked")


def _batch_norm_pairs(
    tensors: Mapping[str, TensorRef], modules: Sequence[Module], by_path: Mapping[str, Module]
) -> list[tuple[Module, Module, str]]:
    """(weight module, batch norm, why) for each batch norm whose weight is found."""
    in_order = not is_sorted_file(tensors)
    ordered = sorted(modules, key=lambda m: m.order if in_order else 0)
    if not in_order:
        ordered = sorted(modules, key=lambda m: natural_key(m.path))
    place = {module.path: at for at, module in enumerate(ordered)}
    taken: set[str] = set()
    pairs: list[tuple[Module, Module, str]] = []
    for norm in ordered:
        channels = norm.batch_norm_channels
        if channels is None:
            continue
        found = _named_partner(norm, channels, by_path)
        # Registered after its norm, a weight is not in front of it (pre-activation networks).
        if found is not None and in_order and place[found[0].path] > place[norm.path]:
            found = None
        if found is None and in_order:
            found = _weight_before(norm, channels, ordered, place)
        if found is not None and found[0].path not in taken:
            taken.add(found[0].path)
            pairs.append((found[0], norm, found[1]))
    return pairs


def _named_partner(
    norm: Module, channels: int, by_path: Mapping[str, Module]
) -> tuple[Module, str] | None:
    prefix = f"{norm.parent}." if norm.parent else ""
    candidates: list[str] = []
    if norm.leaf.isdigit():
        if int(norm.leaf) > 0:
            candidates.append(str(int(norm.leaf) - 1))
    else:
        candidates.extend(
            _NORM_WORD.sub(word, norm.leaf, count=1).strip("_")
            for word in _WEIGHT_WORDS
            if _NORM_WORD.search(norm.leaf)
        )
        # Suffixed pairs: `conv_bn` behind `conv`, `stem_norm` behind `stem`.
    for leaf in candidates:
        partner = by_path.get(prefix + leaf) if leaf else None
        if partner is not None and _output_axis(partner, channels) is not None:
            return partner, f"`{partner.path}` and batch norm `{norm.path}` pair by name"
    return None


def _weight_before(
    norm: Module, channels: int, ordered: Sequence[Module], place: Mapping[str, int]
) -> tuple[Module, str] | None:
    """The module with a weight registered directly before the norm, near it in the tree."""
    for module in reversed(ordered[: place[norm.path]]):
        if module.batch_norm_channels is not None:
            return None
        if module.weight is None:
            continue
        if _output_axis(module, channels) is not None and _near(module.path, norm.path):
            return module, f"`{module.path}` is registered directly before batch norm `{norm.path}`"
        return None
    return None


def _near(a: str, b: str) -> bool:
    """True where two modules have a common ancestor at most two levels above either."""
    first, second = a.split("."), b.split(".")
    common = 0
    while common < min(len(first), len(second)) and first[common] == second[common]:
        common += 1
    return max(len(first), len(second)) - common <= 2


def _output_axis(module: Module, channels: int) -> int | None:
    """Axis of a weight that runs over the norm's channels: 0, or 1 for a transposed convolution."""
    weight = module.weight
    if weight is None:
        return None
    if weight.shape[0] == channels:
        return 0
    if len(weight.shape) >= 3 and weight.shape[1] == channels:
        return 1
    return None


def _behind_batch_norm(module: Module, norm: Module, reason: str) -> tuple[TensorSymmetry, ...]:
    weight = module.weight
    channels = norm.batch_norm_channels
    if weight is None or channels is None:
        return ()
    behind = NormBehind(
        kind="batch_norm",
        gamma=norm.full_name("weight") if "weight" in norm.tensors else None,
        beta=norm.full_name("bias") if "bias" in norm.tensors else None,
        running_var=norm.full_name("running_var"),
    )
    evidence = (Evidence(EvidenceKind.NAMES, f"{reason}; {channels} channels; {MEASURED}"),)
    symmetries = [
        TensorSymmetry(
            name=module.full_name("weight"),
            shape=weight.shape,
            dtype=weight.dtype,
            role=Role.SCALE_INVARIANT,
            granularity=Granularity.CHANNEL,
            axis=_output_axis(module, channels),
            groups=channels,
            evidence=evidence,
            norm=behind,
        )
    ]
    bias = module.tensors.get("bias")
    if bias is not None and bias.shape == (channels,):
        symmetries.append(
            TensorSymmetry(
                name=module.full_name("bias"),
                shape=bias.shape,
                dtype=bias.dtype,
                role=Role.IRRELEVANT,
                granularity=None,
                axis=None,
                groups=channels,
                evidence=(
                    Evidence(EvidenceKind.NAMES, f"the mean that `{norm.path}` subtracts holds it"),
                ),
                clock=True,
            )
        )
    return tuple(symmetries)


def _weight_norm(module: Module) -> tuple[TensorSymmetry, ...]:
    """Weight normalisation stores direction and length apart: the direction is invariant."""
    for direction, length in (("weight_v", "weight_g"), ("original1", "original0")):
        v, g = module.tensors.get(direction), module.tensors.get(length)
        if v is None or g is None or len(v.shape) < 2 or len(g.shape) not in (0, len(v.shape)):
            continue
        axes = [at for at, size in enumerate(g.shape) if size > 1]
        axis = axes[0] if axes else None
        return (
            TensorSymmetry(
                name=module.full_name(direction),
                shape=v.shape,
                dtype=v.dtype,
                role=Role.SCALE_INVARIANT,
                granularity=Granularity.TENSOR if axis is None else Granularity.CHANNEL,
                axis=axis,
                groups=1 if axis is None else g.shape[axis],
                evidence=(
                    Evidence(
                        EvidenceKind.NAMES,
                        f"weight normalisation: length in `{module.full_name(length)}`",
                    ),
                ),
            ),
        )
    return ()


def _query_key_norm(module: Module, by_path: Mapping[str, Module]) -> tuple[TensorSymmetry, ...]:
    """Bias-free q/k projections with a q_norm/k_norm sibling (per head, or across heads)."""
    match = re.fullmatch(r"(q|k|query|key)_?(proj)?", module.leaf)
    weight = module.weight
    if match is None or weight is None or "bias" in module.tensors:
        return ()
    prefix = f"{module.parent}." if module.parent else ""
    for leaf in (f"{match[1]}_norm", f"{match[1]}norm", f"{match[1]}_layernorm"):
        norm = by_path.get(prefix + leaf)
        gain = norm.tensors.get("weight") if norm is not None else None
        if norm is None or gain is None or len(gain.shape) != 1 or gain.shape[0] == 0:
            continue
        heads, rest = divmod(weight.shape[0], gain.shape[0])
        if rest:
            continue
        return (
            TensorSymmetry(
                name=module.full_name("weight"),
                shape=weight.shape,
                dtype=weight.dtype,
                role=Role.SCALE_INVARIANT,
                granularity=Granularity.TENSOR if heads == 1 else Granularity.HEAD,
                axis=0,
                groups=heads,
                evidence=(
                    Evidence(EvidenceKind.NAMES, f"normalised by `{norm.path}`; {MEASURED}"),
                ),
                norm=NormBehind("query_key_norm", norm.full_name("weight"), None, None),
            ),
        )
    return ()


def _classifier(modules: Sequence[Module], found: Mapping[str, TensorSymmetry]) -> str | None:
    """Path of the last matrix that no normalisation follows: the softmax classifier, if any."""
    names = ("fc", "classifier", "head", "linear", "output", "logits", "last_linear", "fc_out")
    matrices = [
        module
        for module in modules
        if module.weight is not None
        and len(module.weight.shape) == 2
        and module.full_name("weight") not in found
    ]
    named = [module for module in matrices if module.leaf in names or module.parent in names]
    if named:
        return named[-1].path
    return matrices[-1].path if len(matrices) == 1 else None


def _rest(name: str, ref: TensorRef, in_classifier: bool) -> TensorSymmetry:
    role = Role.NOT_SCALE_INVARIANT
    detail = "no normalisation is found behind it by name"
    if len(ref.shape) < 2:
        detail = "a gain or a bias"
    elif in_classifier:
        detail = "classifier: nothing normalises its output"
    return TensorSymmetry(
        name=name,
        shape=ref.shape,
        dtype=ref.dtype,
        role=role,
        granularity=None,
        axis=0 if ref.shape else None,
        groups=1,
        evidence=(Evidence(EvidenceKind.NAMES, detail),),
        clock=in_classifier,
    )
