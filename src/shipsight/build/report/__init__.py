# SPDX-License-Identifier: Apache-2.0
"""The report: a bundle's proof as a page for people, a model card and a bill of materials.

Leaves to others: measuring and storing. Rules: reads nothing, asks nobody, and the same data gives the same bytes.
Unstable.
"""

from shipsight.build.report.data import ReportData, WorstImage
from shipsight.build.report.model_card import render_model_card
from shipsight.build.report.page import render_report
from shipsight.build.report.pareto import render_pareto_svg
from shipsight.build.report.sbom import render_sbom

__all__ = ["ReportData", "WorstImage", "render_model_card", "render_pareto_svg", "render_report", "render_sbom"]
