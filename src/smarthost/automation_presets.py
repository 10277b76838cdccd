"""Gives the rules that are in use: the configuration's own, then those that are shipped for the large providers."""

from importlib import resources
from pathlib import Path

from smarthost.config import Config
from smarthost.config_automation import read_automation
from smarthost.config_read import Findings, Table
from smarthost.config_source import ConfigError, parse_source
from smarthost.policy.automation import AutomationRule

PRESETS = "automation.toml"  # beside this file, so that an installed package has it


def automation_rules(config: Config) -> tuple[AutomationRule, ...]:
    """Give the rules in their order; one of the configuration takes the place of a preset with its name."""
    if not config.automation_presets:
        return config.automation
    own = {rule.name for rule in config.automation}
    return (*config.automation, *(rule for rule in read_presets() if rule.name not in own))


def read_presets() -> tuple[AutomationRule, ...]:
    """Read the rules that are shipped; raises ConfigError when the file is not what we shipped."""
    text = resources.files("smarthost").joinpath(PRESETS).read_text(encoding="utf-8")
    source = parse_source(text, Path(PRESETS))
    findings = Findings(source)
    top = Table(source.values, (), findings)
    rules = read_automation(top, ())
    top.finish()
    if findings.problems:
        raise ConfigError(tuple(findings.problems))
    return rules
