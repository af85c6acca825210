"""The import rules of the design page hold, and the client's import is light."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What `import greend_client` may load besides the standard library.
CLIENT_MAY_LOAD = {"greend_client", "greend_proto", "grpc", "google"}
# What these load in turn: grpcio its one dependency, its sisters if they are
# installed, and what Cython calls its runtime.
GRPC_LOADS = {"typing_extensions", "grpc_health", "grpc_reflection", "cython_runtime"}


def run(*arguments: str) -> str:
    """Run Python from the root; its standard output, its error output on failure."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def loaded_by(package: str) -> set[str]:
    """Every module that a fresh interpreter loads when it imports the package."""
    out = run(
        "-c",
        "import sys; before = set(sys.modules)\n"
        f"import {package}\n"
        "print(*(set(sys.modules) - before), sep='\\n')",
    )
    return set(out.split())


def beyond_standard_library(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules} - sys.stdlib_module_names


def test_import_contracts_hold() -> None:
    run("-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache")


def test_importing_the_client_loads_only_grpc_protobuf_and_the_standard_library() -> None:
    modules = loaded_by("greend_client")
    assert "greend_client" in modules
    packages = {
        name for name in beyond_standard_library(modules) if not name.startswith("_cython_")
    }
    assert packages <= CLIENT_MAY_LOAD | GRPC_LOADS
    of_google = {module for module in modules if module.startswith("google.")}
    assert {module.split(".")[1] for module in of_google} <= {"protobuf", "_upb"}


def test_importing_greend_loads_nothing_else() -> None:
    assert beyond_standard_library(loaded_by("greend")) == {"greend"}
