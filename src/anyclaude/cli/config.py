"""`anyclaude config`: every setting, its value, and where it came from."""

from collections.abc import Mapping

from anyclaude.cli.show import or_dash, print_columns, print_json
from anyclaude.config.secret import Secret
from anyclaude.config.settings import Settings
from anyclaude.config.table import BY_NAME, SETTINGS
from anyclaude.launch.arguments import CommandLine
from anyclaude.paths import Folders


def show_config(line: CommandLine, settings: Settings, folders: Folders, environ: Mapping[str, str]) -> int:
    rows = [
        {
            "name": setting.name,
            "value": _shown(getattr(settings, setting.name)),
            "source": settings.sources[setting.name],
        }
        for setting in SETTINGS
    ]
    places = {
        "config": str(folders.settings_file),
        "state": str(folders.state),
        "cache": str(folders.cache),
        "runtime": str(folders.runtime),
    }
    unknown = unknown_variables(environ)
    if "--json" in line.flags:
        print_json({"settings": rows, "backends": settings.backend_names, "places": places, "unknown": unknown})
        return 0
    print_columns(
        [("setting", "value", "from"), *((str(row["name"]), or_dash(row["value"]), str(row["source"])) for row in rows)]
    )
    print()
    if settings.backend_names:
        print(f"named backends: {', '.join(settings.backend_names)}")
    print_columns([("folder", "place"), *places.items()])
    for name in unknown:
        print(f"\n{name} is set, but no setting has that name")
    return 0


def _shown(value: object) -> str | int | float | None:
    if isinstance(value, Secret):
        return str(value)
    assert value is None or isinstance(value, str | int | float)
    return value


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {setting.variable for setting in BY_NAME.values()}
    return sorted(name for name in environ if name.startswith("ANYCLAUDE_") and name not in known)
