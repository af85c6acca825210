"""The alert rules and the tests that promtool makes of them."""

import re
from pathlib import Path

RULES = Path(__file__).parents[2] / "deploy/prometheus/greend.rules.yml"
RULE_TESTS = Path(__file__).parent / "greend.rules.test.yml"


def expressions() -> str:
    """What the rules ask for, without what they say to people."""
    return re.sub(r"annotations:.*?(?=- alert|\Z)", "", RULES.read_text(), flags=re.DOTALL)


def alerts() -> set[str]:
    """Names of the alerts."""
    return set(re.findall(r"- alert: (\w+)", RULES.read_text()))


def tested_alerts() -> set[str]:
    """Names of the alerts that some test expects to fire."""
    return set(re.findall(r'alertname="(\w+)"', RULE_TESTS.read_text()))
