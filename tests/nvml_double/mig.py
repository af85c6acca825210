"""The MIG instances of a GPU of the double, by the names of their profiles."""

import re
import uuid
from collections.abc import Sequence

from tests.nvml_double.layout import MAX_INSTANCES, GpuState

# "1c.3g.40gb" is a compute instance of one slice in a GPU instance of three.
_PROFILE = re.compile(r"(?:(\d)c\.)?(\d)g\.(\d+)gb")


def describe(state: GpuState, profiles: Sequence[str]) -> list[str]:
    """Write a GPU's instances into its state, each in a GPU instance of its own.

    An instance of the same profile in the same place has the same UUID again. Returns the
    UUIDs; raises ``ValueError`` for what is no profile, or more slices than the card has.
    """
    sizes = [_slices(profile) for profile in profiles]
    if len(sizes) > MAX_INSTANCES or sum(gpu for _, gpu, _ in sizes) > state.compute_slices:
        raise ValueError(f"{profiles}: the card has {state.compute_slices} slices")
    for entry in state.instances:
        entry.present = 0
    card, uuids = state.uuid.decode(), []
    for number, (profile, sizes_of) in enumerate(zip(profiles, sizes, strict=True)):
        entry = state.instances[number]
        entry.compute_slices, entry.gpu_slices, memory_gib = sizes_of
        entry.memory_mib = memory_gib << 10
        entry.gpu_instance_id, entry.compute_instance_id = number + 1, 0
        made = uuid.uuid5(uuid.UUID(card.removeprefix("GPU-")), f"{number} {profile}")
        uuids.append(f"MIG-{made}")
        entry.uuid = uuids[-1].encode()
        entry.name = f"{state.name.decode()} MIG {profile}".encode()
        entry.present = 1
    return uuids


def _slices(profile: str) -> tuple[int, int, int]:
    """Slices of the compute instance and of the GPU instance, and GiB of memory."""
    match = _PROFILE.fullmatch(profile)
    if match is None:
        raise ValueError(f"{profile!r} is not of the form 3g.40gb")
    compute, gpu, memory_gib = match.groups()
    return int(compute or gpu), int(gpu), int(memory_gib)
