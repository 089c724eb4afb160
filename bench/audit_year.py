# SPDX-License-Identifier: Apache-2.0
"""What a weekly review finds in a made-up year of three organisations, and how often it is wrong.

The year comes from `audit_year/`, which knows nothing of the rules. Each week is reviewed as `shipsight audit review` does it, with the past
before it as what is usual. An incident is found where a finding (a warning or an alarm, not a note) of any week names one of its entries. A
finding that names no entry of any incident is false.

    python bench/audit_year.py --seeds 101,102,103 --sizes small,medium,large
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from audit_year.incidents import KINDS
from audit_year.organisation import BEGIN, SIZES, WEEKS
from audit_year.year import Year

from shipsight.access.review import Finding, Reviewed, Reviewer


class Judge:
    """Compares findings with what was planted."""

    def __init__(self, year: Year) -> None:
        self.year = year
        self.reviews: list[tuple[int, Reviewed]] = []

    def judge(self) -> tuple[dict[int, set[str]], list[tuple[int, Finding]], int]:
        """Returns which rules found each incident, false findings with their weeks, and how many notes there were."""
        whose: dict[int, list[int]] = defaultdict(list)
        for number, incident in enumerate(self.year.incidents):
            for seq in incident.seqs:
                whose[seq].append(number)
        found: dict[int, set[str]] = defaultdict(set)
        false, notes = [], 0
        for week, reviewed in self.reviews:
            notes += len(reviewed.notes)
            for finding in reviewed.findings:
                hit = {number for seq in finding.seqs for number in whose[seq]} | self.without_entries(finding, week)
                for number in hit:
                    found[number].add(finding.rule)
                if not hit:
                    false.append((week, finding))
        return found, false, notes

    def without_entries(self, finding: Finding, week: int) -> set[int]:
        """Incidents that are a thing not done: reviews that nobody made. Their finding stands on what is not there."""
        return {
            number
            for number, one in enumerate(self.year.incidents)
            if one.skips and finding.rule == "review-overdue" and one.week <= week <= one.week + one.skips + 2
        }


def run(size: str, seed: int, weeks: int) -> tuple[Judge, int]:
    year = Year(SIZES[size], seed, weeks=weeks, first_strength=seed)
    judge, reviewer, many = Judge(year), Reviewer(), 0
    for week, entries in enumerate(year.by_week()):
        many += len(entries)
        for entry in entries:
            reviewer.see(entry)
        until = datetime.combine(BEGIN + timedelta(weeks=week + 1), clock_time(), UTC)
        judge.reviews.append((week, reviewer.made(until)))
    return judge, many


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="101")
    parser.add_argument("--sizes", default="small,medium,large")
    parser.add_argument("--weeks", type=int, default=WEEKS)
    parser.add_argument("--show", action="store_true", help="print each false finding, and what was missed")
    options = parser.parse_args()
    table: dict[str, dict[str, list[tuple[int, bool]]]] = defaultdict(lambda: defaultdict(list))
    by: dict[str, Counter[str]] = defaultdict(Counter)
    sums = []
    for size in options.sizes.split(","):
        for seed in map(int, options.seeds.split(",")):
            begin = time.perf_counter()
            judge, many = run(size, seed, options.weeks)
            took = time.perf_counter() - begin
            found, false, notes = judge.judge()
            for number, incident in enumerate(judge.year.incidents):
                table[incident.kind][size].append((incident.strength, number in found))
                by[incident.kind].update(found.get(number, ()))
            tell_run(size, seed, judge, found, false, show=options.show)
            missed = sum(number not in found for number in range(len(judge.year.incidents)))
            per_week = Counter(week for week, _ in false)
            sums.append(
                (
                    size,
                    seed,
                    many,
                    len(judge.year.incidents),
                    missed,
                    len(false),
                    max(per_week.values(), default=0),
                    notes,
                    took,
                    Counter(one.rule for _, one in false),
                )
            )
    tell_tables(table, by, sums, options.weeks)


def tell_run(
    size: str, seed: int, judge: Judge, found: dict[int, set[str]], false: list[tuple[int, Finding]], *, show: bool
) -> None:
    if not show:
        return
    for number, incident in enumerate(judge.year.incidents):
        if number not in found:
            print(
                f"missed {size} {seed}: {incident.kind} strength {incident.strength} week {incident.week} {len(incident.seqs)} entries"
            )
    for week, finding in false:
        print(f"false {size} {seed} week {week}: {finding.rule} {finding.severity}: {finding.what}")
    print(f"not possible {size} {seed}: {judge.year.not_here}", flush=True)


def tell_tables(
    table: dict[str, dict[str, list[tuple[int, bool]]]], by: dict[str, Counter[str]], sums: list[tuple], weeks: int
) -> None:  # type: ignore[type-arg]  # rows to print
    sizes = list(dict.fromkeys(one[0] for one in sums))
    print("\n| incident | " + " | ".join(f"{size}: found of planted" for size in sizes) + " | by rules |")
    print("|---|" + "---|" * (len(sizes) + 1))
    for kind in KINDS:
        cells = []
        for size in sizes:
            rows = table[kind][size]
            cells.append(f"{sum(good for _, good in rows)} of {len(rows)}" if rows else "not possible")
        rules = ", ".join(f"{rule} {count}" for rule, count in by[kind].most_common(4))
        print(f"| {kind.replace('_', ' ')} | " + " | ".join(cells) + f" | {rules} |")
    print(
        "\n| organisation | seed | entries | incidents | missed | false findings | a week | most in one week | notes a week | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for size, seed, many, planted, missed, false, most, notes, took, _ in sums:
        print(
            f"| {size} | {seed} | {many} | {planted} | {missed} | {false} | {false / weeks:.2f} | {most} | {notes / weeks:.1f} | {took:.0f} |"
        )
    for size in sizes:
        rules = sum((one[-1] for one in sums if one[0] == size), Counter())
        print(f"\nFalse findings, {size}: " + ", ".join(f"{rule} {count}" for rule, count in rules.most_common()))


if __name__ == "__main__":
    main()
