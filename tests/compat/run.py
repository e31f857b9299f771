"""`make compat`: the tests marked `compat` against releases of Transformers 5, each in an environment of its own.

    python -m tests.compat.run                        the first and the last patch of each minor release, written into the docs
    python -m tests.compat.run 5.0.0 5.24.0           these
    python -m tests.compat.run ci                     the oldest, the pinned and the newest
    python -m tests.compat.run newest lowest          names; `lowest` is the oldest with every floor of setup.py

pip resolves each release anew: `huggingface_hub`, `tokenizers`, numpy and the rest. What the virtual environment that runs this
has in another version goes into a folder that comes before it on the path; torch and the other packages are shared. The folder
is removed after use. A release that has passed with the same sources is not tried again, so a run that was stopped goes on.

Exit status: 0 all passed, 1 a test failed, 2 the index or an environment could not be had.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-compat"
PAGE = ROOT / "docs" / "compatibility.md"
OLDEST = "5.0.0"
LOWEST = "lowest"
SHOWN = ("transformers", "huggingface_hub", "tokenizers", "numpy")
BEGIN, END = "<!-- table: written by `make compat` -->", "<!-- end of table -->"
NEED_TORCH = ("accelerate",)
"""Packages of ours that would bring a torch along, which comes from the virtual environment."""


class NotAvailableError(Exception):
    """The index or an environment cannot be had."""


def released(package: str = "transformers") -> list[Version]:
    """What the index has, oldest first, from `OLDEST` on and without pre-releases."""
    found = re.search(r"^Available versions: (.+)$", pip("index", "versions", package), re.MULTILINE)
    if found is None:
        raise NotAvailableError(f"the index lists no releases of {package}")
    versions = sorted(Version(text.strip()) for text in found[1].split(","))
    return [one for one in versions if Version(OLDEST) <= one < Version("6") and not one.is_prerelease]


def ends_of_minors(versions: Iterable[Version]) -> list[str]:
    """The first and the last patch of each minor release, in order."""
    minors: dict[tuple[int, int], list[Version]] = {}
    for version in sorted(versions):
        minors.setdefault((version.major, version.minor), []).append(version)
    ends = [[patches[0], patches[-1]] if len(patches) > 1 else patches for patches in minors.values()]
    return [str(version) for both in ends for version in both]


def pinned() -> str:
    """The release in constraints.txt."""
    found = re.search(r"^transformers==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, "constraints.txt pins no transformers"
    return found[1]


def floors() -> list[str]:
    """Each `name>=version` of setup.py's `install_requires` but torch as `name==version`."""
    required = re.search(r"install_requires=\[(.+?)\]", (ROOT / "setup.py").read_text(encoding="utf-8"), re.DOTALL)
    assert required, "setup.py has no install_requires"
    pairs = re.findall(r'"([\w-]+)>=([\d.]+)', required[1])
    return [f"{name}=={version}" for name, version in pairs if name != "torch"]


def select(names: Sequence[str], list_releases: Callable[[], list[Version]] = released) -> list[str]:
    """Names and releases -> releases, each once, in the order given; `lowest` stays a name.

    Raises:
        ValueError: something that is neither a name nor a release of Transformers 5.
        NotAvailableError: the index is needed and cannot be asked.
    """
    chosen: list[str] = []
    for name in names or ["all"]:
        if name == "all":
            chosen += [LOWEST, *ends_of_minors(list_releases())]
        elif name == "ci":
            chosen += [OLDEST, pinned(), str(list_releases()[-1])]
        elif name in ("oldest", "pinned", "newest", LOWEST):
            known = {"oldest": lambda: OLDEST, "pinned": pinned, LOWEST: lambda: LOWEST}
            chosen.append(known.get(name, lambda: str(list_releases()[-1]))())
        elif re.fullmatch(r"5\.\d+\.\d+", name):
            chosen.append(name)
        else:
            raise ValueError(
                f"{name!r} is neither a release such as 5.0.0 nor all, ci, oldest, pinned, newest or lowest"
            )
    return list(dict.fromkeys(chosen))


def digest_of_sources() -> str:
    """Changes with everything that the tests see of this repository."""
    digest = hashlib.sha256()
    files = [ROOT / "setup.py", ROOT / "pyproject.toml", ROOT / "README.md"]
    for folder in ("src", "tests"):
        files += sorted((ROOT / folder).rglob("*"))
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts and ".egg-info" not in str(file):
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:32]


def pip(*arguments: str) -> str:
    """What pip prints.

    Raises:
        NotAvailableError: it fails twice.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
    errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
    raise NotAvailableError("\n".join(errors)[-2000:])


def resolve(release: str) -> dict[str, str]:
    """What pip chooses for a release, or for the floors: package -> version."""
    wanted = (
        [one for one in floors() if one.split("==")[0] not in NEED_TORCH]
        if release == LOWEST
        else [f"transformers=={release}"]
    )
    report = json.loads(pip("install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", *wanted))
    chosen = {
        one["metadata"]["name"].replace("-", "_").lower(): one["metadata"]["version"] for one in report["install"]
    }
    if brought := chosen.keys() & {"torch", *NEED_TORCH}:
        raise NotAvailableError(f"{release} brings its own {', '.join(brought)}")
    if release == LOWEST:
        chosen |= dict(one.split("==") for one in floors() if one.split("==")[0] in NEED_TORCH)
    return chosen


def make_environment(release: str, folder: Path) -> dict[str, str]:
    """Puts into `folder` what the release wants in another version than the virtual environment has -> all versions it wants."""
    chosen = resolve(release)
    present = {one.name.replace("-", "_").lower(): one.version for one in metadata.distributions()}
    lacking = [f"{name}=={version}" for name, version in chosen.items() if present.get(name) != version]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if lacking:
        pip("install", "--quiet", "--no-compile", "--no-deps", "--target", str(folder), *lacking)
    return chosen


def marked_files() -> list[str]:
    """Test modules with the marker: only these are imported, in releases that others may not run with."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file) for file in files if "mark.compat" in file.read_text(encoding="utf-8")]


def run_tests(environment: Path, version: str, report: Path) -> tuple[dict[str, int], list[str]]:
    """Runs the marked tests -> how many passed, failed and were skipped, and the names of those that failed."""
    path = [str(environment), str(ROOT / "src"), str(ROOT)]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "COMPAT_RELEASE": version,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}"]
    log = report.with_suffix(".log")
    with log.open("w", encoding="utf-8") as output:
        marker = ["-m", "compat and not slow and not network"]
        subprocess.run([*command, *marker, *marked_files()], env=variables, cwd=ROOT, stdout=output, stderr=output)
    if not report.is_file():
        return {"passed": 0, "failed": 1, "skipped": 0}, [f"no test ran, see {log}"]
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    counts = {"passed": len(cases) - len(bad) - skipped, "failed": len(bad), "skipped": skipped}
    return counts, [f"{case.get('classname')}::{case.get('name')}" for case in bad]


def try_release(release: str, sources: str, keep: bool) -> dict[str, Any]:
    """Builds the environment, runs the tests and notes the result."""
    environment, results = FOLDER / release, FOLDER / "results"
    results.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        chosen = make_environment(release, environment)
        packages = {name: chosen[name] for name in SHOWN}
        counts, failures = run_tests(environment, packages["transformers"], results / f"{release}.xml")
    finally:
        if not keep:
            shutil.rmtree(environment, ignore_errors=True)
    seconds = round(time.monotonic() - start)
    result = {
        "release": release,
        "sources": sources,
        "packages": packages,
        **counts,
        "failures": failures,
        "seconds": seconds,
    }
    (results / f"{release}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def earlier(release: str, sources: str) -> dict[str, Any] | None:
    """What the same sources gave in an earlier run, if they passed."""
    file = FOLDER / "results" / f"{release}.json"
    if not file.is_file():
        return None
    result = json.loads(file.read_text(encoding="utf-8"))
    return result if result["sources"] == sources and not result["failed"] else None


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown, a row for each release."""
    lines = [f"| {' | '.join(SHOWN)} | passed | failed |", "|" + "---|" * (len(SHOWN) + 2)]
    for result in results:
        versions = [result["packages"][name] for name in SHOWN]
        if result["release"] == LOWEST:
            versions[0] += " (lowest)"
        lines.append(f"| {' | '.join([*versions, str(result['passed']), str(result['failed'])])} |")
    return "\n".join(lines)


def write_page(text: str, page: Path = PAGE) -> None:
    """Puts the table between its marks on the page."""
    content = page.read_text(encoding="utf-8")
    before, rest = content.split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def setting() -> str:
    """With what the releases share."""
    shared = ", ".join(f"{name} {metadata.version(name).split('+')[0]}" for name in ("torch", "accelerate"))
    return f"Python {sys.version_info.major}.{sys.version_info.minor}, {shared}, {time.strftime('%Y-%m-%d')}."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make compat", description="The tests marked `compat`, release by release.")
    parser.add_argument(
        "releases", nargs="*", help="releases, or all (the default), ci, oldest, pinned, newest, lowest"
    )
    parser.add_argument("--keep", action="store_true", help="leave the environments in .venv-compat/")
    parser.add_argument("--fresh", action="store_true", help="try again what has passed with the same sources")
    options = parser.parse_args(arguments)
    sources, results, missing = digest_of_sources(), [], []
    try:
        releases = select(options.releases)
    except ValueError as error:
        parser.error(str(error))
    except NotAvailableError as error:
        print(error, file=sys.stderr)
        return 2
    for release in releases:
        result = None if options.fresh else earlier(release, sources)
        try:
            result = result or try_release(release, sources, options.keep)
        except NotAvailableError as error:
            print(f"{release}: {error}", file=sys.stderr)
            missing.append(release)
            continue
        results.append(result)
        print(f"{release}: {result['passed']} passed, {result['failed']} failed, {result['seconds']} s", flush=True)
        for name in result["failures"]:
            print(f"    {name}")
    print(f"\n{table(results)}\n\n{setting()}")
    if options.releases in ([], ["all"]) and not missing:
        write_page(f"{setting()}\n\n{table(results)}")
    if missing:
        return 2
    return 1 if any(result["failed"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
