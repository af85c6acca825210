"""Which GPUs ``gpus=`` means, as UUIDs. Pure but for ``shown_gpus``.

The rules of CUDA_VISIBLE_DEVICES are those of the CUDA C++ Programming Guide
("CUDA Environment Variables") as PyTorch's ``torch.cuda._parse_visible_devices``
works them out; those of NVIDIA_VISIBLE_DEVICES are the NVIDIA Container Toolkit's.
MIG instances are named as the MIG User Guide says.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import SupportsIndex

import grpc

from greend_client._errors import GreendError
from greend_client._node import Device, MigInstance

Gpu = SupportsIndex | str
"""A GPU: its index in NVML's order, its UUID, or an unambiguous beginning of it.

A MIG instance: its UUID, a beginning of it, or its older name "MIG-GPU-…/1/0".
"""
Gpus = Gpu | Sequence[Gpu]
"""GPUs: one, several, or "auto" for those that this process can see."""

ENVIRONMENT = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")
"""The variables that decide what "auto" means."""

Unit = Device | MigInstance
"""What a process can run on."""

_INDEX = re.compile(r"[+-]?\d+")


def resolve(
    gpus: Gpus,
    devices: Sequence[Device],
    environment: Mapping[str, str],
    shown: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Return the UUIDs of the GPUs and MIG instances meant; at least one.

    Args:
        gpus: What the caller gave.
        devices: The daemon's devices, in NVML's order.
        environment: Where "auto" looks for the variables in ENVIRONMENT.
        shown: UUIDs of the GPUs that the host or container shows; empty: not known.

    Raises:
        GreendError: INVALID_ARGUMENT or NOT_FOUND: no such GPU, or none, or it
            is ambiguous which; the text names what exists.
    """
    if isinstance(gpus, str) and gpus == "auto":
        chosen = _visible(devices, environment, shown)
        if not chosen:
            raise _invalid('gpus="auto", but this process can see no GPU that the daemon measures')
    else:
        wanted = [gpus] if isinstance(gpus, str | SupportsIndex) else list(gpus)
        chosen = [find(gpu, devices) for gpu in wanted]
        if not chosen:
            raise _invalid('gpus= names no GPU: leave it out, or give "auto", indices or UUIDs')
    return tuple(dict.fromkeys(unit.uuid for unit in chosen))


def find(gpu: Gpu, devices: Sequence[Unit]) -> Unit:
    """Return the device or MIG instance that an index, a UUID or a beginning of one names.

    Raises:
        GreendError: INVALID_ARGUMENT or NOT_FOUND, naming what exists.
    """
    text = gpu.strip() if isinstance(gpu, str) else str(gpu.__index__())
    if re.fullmatch(r"\d+:\d+", text):
        raise _invalid(f'"{text}" counts the MIG instances of a GPU: give a UUID (nvidia-smi -L)')
    matches = _matches(text, devices)
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(map(_label, _with_instances(devices))) or "none"
    if matches:
        raise _invalid(f'"{text}" is the beginning of several GPUs\' UUIDs; there are {known}')
    raise GreendError(f'no GPU "{text}"; there are {known}', grpc.StatusCode.NOT_FOUND)


def shown_gpus(root: str = "/") -> frozenset[str]:
    """Return the UUIDs of the GPUs that the driver's files under ``root`` show.

    In a container either the driver's list or the device nodes are cut down to
    the container's GPUs, depending on how they were put there: a GPU counts when
    both are there. Empty where there are no such files, as without a driver.
    """
    uuids = set()
    for path in Path(root, "proc/driver/nvidia/gpus").glob("*/information"):
        try:
            text = path.read_text()
        except OSError:
            continue
        uuid = re.search(r"GPU UUID:\s*(GPU-[0-9a-fA-F-]+)", text)
        minor = re.search(r"Device Minor:\s*(\d+)", text)
        if uuid and minor and Path(root, f"dev/nvidia{minor[1]}").exists():
            uuids.add(uuid[1])
    return frozenset(uuids)


def _visible(
    devices: Sequence[Device], environment: Mapping[str, str], shown: frozenset[str]
) -> Sequence[Unit]:
    inside = _in_container(devices, environment.get("NVIDIA_VISIBLE_DEVICES"), shown)
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return inside
    return _cuda_visible(inside, listed, environment.get("CUDA_DEVICE_ORDER"))


def _in_container(
    devices: Sequence[Device], listed: str | None, shown: frozenset[str]
) -> Sequence[Unit]:
    listed = (listed or "").strip()
    # What is really shown beats the variable, whose numbers are those of the host that
    # the container was started on. Of MIG instances it shows the whole cards.
    known = [device for device in devices if device.uuid in shown]
    if known and not listed.startswith("MIG-"):
        return known
    # "void" is also what CDI leaves in a container that has GPUs, and a path
    # what the device plugin leaves that mounts them: neither says which.
    if listed in ("", "all", "void") or listed.startswith("/"):
        return devices
    if listed == "none":
        return []
    chosen = set()
    for entry in listed.split(","):
        try:
            chosen.add(find(entry, devices).uuid)
        except GreendError:
            if shown and not known:  # the daemon measures others (simulated ones)
                return devices
            raise
    return [unit for unit in _with_instances(devices) if unit.uuid in chosen]


def _cuda_visible(inside: Sequence[Unit], listed: str, order: str | None) -> Sequence[Unit]:
    entries = [entry.strip() for entry in listed.split(",")]
    if entries[0].startswith("MIG-"):
        return [find(entries[0], inside)]  # CUDA shows one instance, and no GPU beside it
    by_uuid = entries[0].startswith("GPU-")
    chosen: list[Unit] = []
    for entry in entries:
        # CUDA shows what stands before the first invalid entry; a list holds
        # either indices or UUIDs.
        if entry.startswith("GPU-") != by_uuid:
            break
        found = _matches(entry, inside) if by_uuid else _at_position(entry, inside)
        if len(found) != 1:
            break
        if found[0] in chosen:  # CUDA shows nothing when a device is repeated
            return []
        chosen.extend(found)
    models = {unit.name for unit in inside}
    if (
        chosen
        and len(chosen) < len(inside)
        and not by_uuid
        and order != "PCI_BUS_ID"
        and len(models) > 1
    ):
        raise _invalid(
            f"CUDA_VISIBLE_DEVICES={listed} counts the fastest GPU first, and there are different "
            "models: give UUIDs, or set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return chosen


def _at_position(entry: str, inside: Sequence[Unit]) -> Sequence[Unit]:
    number = _INDEX.match(entry)  # like strtol: what follows the digits is ignored
    position = int(number[0]) if number else -1
    return inside[position : position + 1] if position >= 0 else []


def _matches(text: str, units: Sequence[Unit]) -> list[Unit]:
    if text.isdecimal():
        return [unit for unit in units if isinstance(unit, Device) and unit.index == int(text)]
    names = [(name, unit) for unit in _with_instances(units) for name in _names(unit)]
    exact = [unit for name, unit in names if name == text]
    # A beginning has to begin: "" or "G" would name whatever there is one of.
    begun = [unit for name, unit in names if len(text) > 4 and name.startswith(text)]
    return list(dict.fromkeys(exact or begun))


def _with_instances(units: Sequence[Unit]) -> Iterator[Unit]:
    for unit in units:
        yield unit
        if isinstance(unit, Device):
            yield from unit.mig_instances


def _names(unit: Unit) -> list[str]:
    if isinstance(unit, Device):
        return [unit.uuid]
    # As drivers before R470 named it, which CUDA still takes.
    older = f"MIG-{unit.device}/{unit.gpu_instance_id}/{unit.compute_instance_id}"
    return [unit.uuid, older]


def _label(unit: Unit) -> str:
    return f"{unit.index}: {unit.uuid}" if isinstance(unit, Device) else unit.uuid


def _invalid(message: str) -> GreendError:
    return GreendError(message, grpc.StatusCode.INVALID_ARGUMENT)
