"""Write config.yaml, its JSON schema and docs/configuration.md from the settings in src/latentwire/settings.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(), help="the repository")
    root = parser.parse_args().root
    from latentwire.files import write_text
    from latentwire.report.settings_files import files

    for path, content in files().items():
        write_text(root / path, content)


if __name__ == "__main__":
    cli.run(main)
