"""The speed table of the README: python -m benchmarks.readme_table [RESULTS.json].

Replaces what stands between two comments in README.md by the table of a results file, by default
the newest in `results/`.
"""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.contestants import NAMES
from benchmarks.onnxruntime_cpu import RESULTS, SUFFIX

README = Path(__file__).parents[1] / "README.md"

BEGIN = "<!-- made by benchmarks/readme_table.py -->"
END = "<!-- end of the table -->"


def newest() -> Path:
    """Return the newest results file."""
    return max(RESULTS.glob(f"*{SUFFIX}"))


def rendered(results: dict[str, Any]) -> str:
    """Return the table of a results file, and the sentence that names the machine."""
    columns = [f"**{name}**" if name == "ours" else name for name in NAMES]
    lines = [
        f"| | {' | '.join(columns)} | aim for ours |",
        f"|---{'|---' * len(NAMES)}|---|",
    ]
    for name, row in results["subjects"].items():
        cells = [_cell(row["ratios"][contestant], contestant) for contestant in NAMES[1:]]
        aim = "" if row["target"] is None else f"{row['target']:g}"
        lines.append(f"| {name} | 1 | {' | '.join(cells)} | {aim} |")
    about, rounds = results["machine"], _rounds(results)
    labels = {"ONNX Runtime": "onnxruntime", "PyTorch": "torch", "nmn": "nmn"}
    versions = ", ".join(f"{label} {about['packages'][name]}" for label, name in labels.items())
    machine = f"{about['processor']}, {about['threads']} threads;"
    return "\n".join([*lines, "", machine, f"{versions}; {rounds} rounds, {results['date']}."])


def _cell(ratio: dict[str, float], contestant: str) -> str:
    value = f"{ratio['ratio']:.2f}"
    value = f"**{value}**" if contestant == "ours" else value
    return f"{value} ({ratio['p20']:.2f}–{ratio['p80']:.2f})"


def _rounds(results: dict[str, Any]) -> int:
    first = next(iter(results["subjects"].values()))
    return int(first["seconds"]["linear"]["calls"])


def replaced(readme: str, table: str) -> str:
    """Return the text of a README with another table."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Write the table of a results file into README.md."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else newest()
    results, readme = json.loads(path.read_text()), README.read_text()
    if "subjects" not in results:  # the format of 2026-11-22 has no ratios
        _fail(f"error: The table needs ratios for each round; got {path.name}. Run `make bench`.")
    if not 0 <= readme.find(BEGIN) < readme.find(END):
        _fail(f"error: README.md needs the comments of the table. Add '{BEGIN}' and '{END}'.")
    README.write_text(replaced(readme, rendered(results)))
    print(f"README.md has the table of {path.name}")


if __name__ == "__main__":
    main()
