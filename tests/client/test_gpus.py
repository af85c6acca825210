from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from greend_client import Device, GreendError
from greend_client._gpus import resolve, shown_gpus
from tests.client.memory_daemon import device

A, B, C, D = "GPU-aaaa-1", "GPU-bbbb-2", "GPU-bbbb-3", "GPU-dddd-4"
FOUR = [Device.from_message(device(index, uuid)) for index, uuid in enumerate((A, B, C, D))]
MIXED = [replace(gpu, name=name) for gpu, name in zip(FOUR, ("T4", "H100") * 2, strict=True)]


def environment(**values: str) -> dict[str, str]:
    names = {"cuda": "CUDA_VISIBLE_DEVICES", "order": "CUDA_DEVICE_ORDER"}
    return {names.get(key, "NVIDIA_VISIBLE_DEVICES"): value for key, value in values.items()}


@pytest.mark.parametrize(
    ("gpus", "uuids"),
    [
        (0, (A,)),
        ("2", (C,)),
        (D, (D,)),
        ("GPU-a", (A,)),
        ([3, A], (D, A)),
        ((1, B, "GPU-bbbb-2"), (B,)),
    ],
)
def test_indices_uuids_and_beginnings_name_gpus(gpus: Any, uuids: tuple[str, ...]) -> None:
    # Whatever CUDA shows: these are the daemon's indices.
    assert resolve(gpus, FOUR, environment(cuda="3")) == uuids


@pytest.mark.parametrize(
    ("gpus", "code", "words"),
    [
        (4, "NOT_FOUND", f'no GPU "4"; there are 0: {A}'),
        (-1, "NOT_FOUND", 'no GPU "-1"'),
        ("", "NOT_FOUND", 'no GPU ""'),
        ("GPU-x", "NOT_FOUND", 'no GPU "GPU-x"'),
        ("GPU-bbbb", "INVALID_ARGUMENT", "several"),
        ("MIG-1234", "NOT_FOUND", f"there are 0: {A}"),
        ("0:1", "INVALID_ARGUMENT", "MIG"),
        ([], "INVALID_ARGUMENT", "no GPU"),
    ],
)
def test_what_names_no_gpu_is_an_error_that_helps(gpus: Any, code: str, words: str) -> None:
    with pytest.raises(GreendError, match=words) as error:
        resolve(gpus, FOUR, {})
    assert error.value.code is grpc.StatusCode[code]


@pytest.mark.parametrize(
    ("listed", "uuids"),
    [
        ("0", (A,)),
        ("2,0", (C, A)),
        (" 1 , 3 ", (B, D)),
        ("0,1,2,3", (A, B, C, D)),
        # What stands before the first invalid entry is visible.
        ("1,-1,0", (B,)),
        ("1,4,0", (B,)),
        ("1,,0", (B,)),
        ("1,GPU-aaaa", (B,)),
        ("1x,0", (B, A)),
        # By UUID, or an unambiguous beginning of one.
        (f"{C},{A}", (C, A)),
        ("GPU-d,GPU-a", (D, A)),
        ("GPU-a,GPU-bbbb,GPU-d", (A,)),
        ("GPU-a,0", (A,)),
        ("GPU-a,GPU-nothing,GPU-d", (A,)),
    ],
)
def test_auto_follows_cuda_visible_devices(listed: str, uuids: tuple[str, ...]) -> None:
    assert resolve("auto", FOUR, environment(cuda=listed)) == uuids


@pytest.mark.parametrize("listed", ["", "-1", "none", "4", "0,0", "GPU-a,GPU-aaaa", "GPU-bbbb"])
def test_auto_with_no_visible_gpu_is_an_error_not_all_gpus(listed: str) -> None:
    with pytest.raises(GreendError, match="can see no GPU"):
        resolve("auto", FOUR, environment(cuda=listed))


def test_auto_means_all_gpus_where_nothing_is_said() -> None:
    assert resolve("auto", FOUR, {}) == (A, B, C, D)
    assert resolve("auto", MIXED, {}) == (A, B, C, D)


@pytest.mark.parametrize("order", [None, "FASTEST_FIRST"])
def test_an_index_among_different_models_is_ambiguous(order: str | None) -> None:
    variables = environment(cuda="0", **({"order": order} if order else {}))
    with pytest.raises(GreendError, match="UUIDs"):
        resolve("auto", MIXED, variables)
    assert resolve("auto", FOUR, variables) == (A,)  # one model: the order is that of the bus


def test_an_index_among_different_models_is_clear_in_bus_order() -> None:
    assert resolve("auto", MIXED, environment(cuda="1,0", order="PCI_BUS_ID")) == (B, A)


@pytest.mark.parametrize("listed", ["GPU-d", "3,2,1,0"])
def test_different_models_are_clear_by_uuid_or_all_together(listed: str) -> None:
    assert set(resolve("auto", MIXED, environment(cuda=listed))) in ({D}, {A, B, C, D})


LARGE, SMALL, OTHER = "MIG-1111-1", "MIG-2222-2", "MIG-3333-3"


def split(index: int, uuid: str, *instances: tuple[str, int]) -> Device:
    """A card with MIG instances, of the slices given."""
    message = device(index, uuid)
    message.compute_slices = 7
    for number, (name, slices) in enumerate(instances):
        message.mig_instances.add(
            uuid=name,
            name=f"H100 MIG {slices}g",
            compute_slices=slices,
            gpu_instance_id=number + 1,
            compute_instance_id=0,
        )
    return Device.from_message(message)


SPLIT = [FOUR[0], split(1, B, (LARGE, 3), (SMALL, 1)), split(2, C, (OTHER, 7))]


@pytest.mark.parametrize(
    ("gpus", "uuids"),
    [
        (LARGE, (LARGE,)),
        ("MIG-2", (SMALL,)),
        ([SMALL, 0, LARGE], (SMALL, A, LARGE)),
        (f"MIG-{B}/2/0", (SMALL,)),
        (1, (B,)),  # the whole card
    ],
)
def test_mig_instances_are_named_by_uuid_or_by_their_older_name(
    gpus: Any, uuids: tuple[str, ...]
) -> None:
    assert resolve(gpus, SPLIT, {}) == uuids


@pytest.mark.parametrize("gpus", ["MIG-", "MIG-4444", f"MIG-{B}/3/0", f"MIG-{B}/1/1", f"MIG-{A}"])
def test_what_names_no_mig_instance_is_told_with_those_that_exist(gpus: str) -> None:
    with pytest.raises(GreendError, match=f"1: {B}, {LARGE}, {SMALL}, 2: {C}") as error:
        resolve(gpus, SPLIT, {})
    assert error.value.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("listed", "uuids"),
    [
        (SMALL, (SMALL,)),
        ("MIG-1", (LARGE,)),
        (f"MIG-{C}/1/0", (OTHER,)),
        # CUDA shows one instance, whatever else is listed.
        (f"{LARGE},{SMALL}", (LARGE,)),
        (f"{LARGE},{A}", (LARGE,)),
        (f"{A},{LARGE}", (A,)),
        ("0,MIG-1111", (A,)),
    ],
)
def test_auto_follows_cuda_visible_devices_to_a_mig_instance(
    listed: str, uuids: tuple[str, ...]
) -> None:
    assert resolve("auto", SPLIT, environment(cuda=listed)) == uuids


@pytest.mark.parametrize("listed", [f"MIG-{A}/1/0", "MIG-4444,0"])
def test_auto_with_a_mig_instance_that_is_unknown_is_an_error(listed: str) -> None:
    with pytest.raises(GreendError, match="there are 0: GPU-aaaa-1, 1: ") as error:
        resolve("auto", SPLIT, environment(cuda=listed))
    assert error.value.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("shown", [frozenset(), frozenset({B}), frozenset({B, C})])
def test_a_container_with_mig_instances_has_them_and_not_their_cards(
    shown: frozenset[str],
) -> None:
    assert resolve("auto", SPLIT, environment(nvidia=SMALL), shown) == (SMALL,)
    assert resolve("auto", SPLIT, environment(nvidia=f"{SMALL},{LARGE}"), shown) == (LARGE, SMALL)
    assert resolve("auto", SPLIT, environment(nvidia=SMALL, cuda="0"), shown) == (SMALL,)
    with pytest.raises(GreendError, match="no GPU"):
        resolve("auto", SPLIT, environment(nvidia="MIG-4444"), shown)


@pytest.mark.parametrize(
    ("listed", "uuids"),
    [
        ("all", (A, B, C, D)),
        ("", (A, B, C, D)),
        ("void", (A, B, C, D)),  # CDI says this where it shows GPUs
        ("/var/run/nvidia-container-devices", (A, B, C, D)),
        ("1", (B,)),
        ("3,1", (B, D)),  # a container's GPUs are in the order of the bus
        (f"{D},GPU-a", (A, D)),
    ],
)
def test_auto_follows_nvidia_visible_devices(listed: str, uuids: tuple[str, ...]) -> None:
    assert resolve("auto", FOUR, environment(nvidia=listed)) == uuids


@pytest.mark.parametrize("listed", ["none", "7", "0:1", "MIG-1"])
def test_nvidia_visible_devices_without_a_known_gpu_is_an_error(listed: str) -> None:
    with pytest.raises(GreendError, match="GPU"):
        resolve("auto", FOUR, environment(nvidia=listed))


def test_cuda_counts_the_gpus_of_the_container() -> None:
    assert resolve("auto", FOUR, environment(nvidia="1,3", cuda="1")) == (D,)


def test_what_the_container_shows_beats_what_its_variable_says() -> None:
    # The variable speaks of the host's indices, where this GPU was number 5.
    shown = frozenset({C})
    assert resolve("auto", FOUR, environment(nvidia="5", cuda="0"), shown) == (C,)


def test_gpus_that_the_daemon_does_not_measure_hide_none_of_its_own() -> None:
    # A simulating daemon on a host with GPUs.
    shown = frozenset({"GPU-real"})
    assert resolve("auto", FOUR, environment(nvidia="GPU-real"), shown) == (A, B, C, D)


def test_a_daemon_without_devices_is_told() -> None:
    with pytest.raises(GreendError, match="can see no GPU"):
        resolve("auto", [], {})
    with pytest.raises(GreendError, match="there are none"):
        resolve(0, [], {})


def test_shown_gpus_have_both_an_entry_of_the_driver_and_a_device_node(tmp_path: Path) -> None:
    for minor, uuid in enumerate(("GPU-0a", "GPU-1b", "GPU-????")):
        folder = tmp_path / f"proc/driver/nvidia/gpus/0000:0{minor}:00.0"
        folder.mkdir(parents=True)
        text = f"Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n"
        (folder / "information").write_text(text)
    (tmp_path / "dev").mkdir()
    for minor in (1, 2):
        (tmp_path / f"dev/nvidia{minor}").touch()
    assert shown_gpus(str(tmp_path)) == {"GPU-1b"}


def test_without_a_driver_no_gpu_is_known_to_be_shown(tmp_path: Path) -> None:
    assert shown_gpus(str(tmp_path)) == frozenset()
