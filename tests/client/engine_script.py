"""What the model of these tests answers, by the marker words that stand in its prompt: the highest step counts."""

from pathlib import Path

from tests.support.marker_model import call, marker_model

SERVER = "growing"
TOOL = f"mcp__{SERVER}__newcomer"
AGENT = call("Agent", description="look", prompt="zqtask", subagent_type="Explore")
STEPS = [
    ("zqask", call("Bash", command="touch zqdone; ls", description="make")),
    ("zqloop", "I will look.\n" + call("Bash", command="echo zqsecond", description="look")),
    ("zqsecond", call("Bash", command="echo zqdone", description="look")),
    ("zqdone", "All is done."),
    ("zqsearch", call("ToolSearch", query=f"select:{TOOL}", max_results=1)),
    ("zqloaded", call(TOOL)),
    ("zqcalled", "It was called."),
    ("zqagent", AGENT + "\n" + call("Bash", command="echo zqwait", description="see")),
    ("zqwait", "I wait for it."),
    ("zqtask", call("Bash", command="echo zqfinding", description="find")),
    ("zqfinding", "The finding is zqfound."),
    ("zqfound", "The agent found it."),
    ("zqagain", "Still here."),
]


def script_model(folder: Path) -> Path:
    return marker_model(folder, STEPS)
