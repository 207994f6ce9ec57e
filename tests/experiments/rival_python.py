"""A Python of an environment with rivals that only prints: what versions there are, and how fast they are."""

import json

THEIRS = {
    "deep_rivals.py": {"version": "9.9", "torch": "1.2", "updates/s": {"td3bc": 50.0, "iql": 40.0, "prdc": 1e-3}},
    "rivals.py": {
        "mabwiser": {"version": "8.8", "rounds/s": {"UCB1": 500.0, "LinUCB": 400.0}},
        "coba": {"version": "7.7", "rounds/s": {"BanditUCB": 300.0}},
    },
}


def rival_python(folder, versions=None, pip="exit 0"):
    """FOLDER/bin/python: answers the benchmark's scripts, runs `pip` for pip, and notes its calls in FOLDER/calls."""
    versions = {"d3rlpy": "9.9", "mabwiser": "8.8", "coba": "7.7"} if versions is None else versions
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/sh\n"
        f'case "$1" in -c) ;; *) echo "$@" >>"{folder}/calls";; esac\n'
        "echo noise\n"
        'case "$1" in\n'
        f"  -c) echo '{json.dumps(versions)}';;\n"
        f"  -m) {pip};;\n"
        f"""  *deep_rivals.py) test -f "$2" || exit 1; echo '{json.dumps(THEIRS["deep_rivals.py"])}';;\n"""
        f"  *rivals.py) echo '{json.dumps(THEIRS['rivals.py'])}';;\n"
        "esac\n"
    )
    python.chmod(0o755)
    return folder
