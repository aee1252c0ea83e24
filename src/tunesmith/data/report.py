"""What `dataset.build` reports, in words. Pure; knows no rows."""

from typing import Any


def warnings(report: dict[str, Any]) -> list[str]:
    """What people should know before they wait for a run, one sentence each."""
    reasons = "; ".join(f"{reason} ({count})" for reason, count in report["set_aside"].items())
    told = {
        "set_aside": f"Rows set aside, of {report['rows']}: {reasons}",
        "split_rows": f"Conversations that are several rows, for the template rewrites earlier messages: {report['split_rows']}",
        "duplicates": f"Rows that repeat an earlier one: {report['duplicates']} (data.duplicates = skip sets them aside)",
        "leaked": f"Held-out rows that ask what is trained on, so that their loss says little: {report['leaked']}",
    }
    return [sentence for name, sentence in told.items() if report[name]]
