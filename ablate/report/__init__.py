"""Results → tables, figures and a page. Never imports torch."""

from ablate.report.write import Report, write_report

__all__ = ["Report", "write_report"]
