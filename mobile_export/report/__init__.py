"""The report: one self-contained HTML page that shows what the phone will draw, and how good that is."""

from mobile_export.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
