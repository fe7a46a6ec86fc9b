"""`nmn-export doctor`: report what this machine supports."""

from nmn_export.cli.arguments import Json
from nmn_export.cli.terminal import out
from nmn_export.report import doctor as doctor_report
from nmn_export.report import render


def doctor(as_json: Json = False) -> None:
    """Report what this machine supports, and what to install for the rest."""
    findings = doctor_report.examine()
    if as_json:
        print(render.doctor_json(findings))
    else:
        out.print(render.doctor_table(findings))
