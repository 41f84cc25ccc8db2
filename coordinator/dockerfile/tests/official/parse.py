"""Reads a JSON list of Dockerfiles, and writes what the official parser makes of each, or null for one that it refuses."""
import json
import sys

import dockerfile


def parsed(text):
    try:
        commands = dockerfile.parse_string(text)
    except dockerfile.GoParseError:
        return None
    return [
        {
            "name": command.cmd or "",
            "trigger": command.sub_cmd,
            "json": command.json,
            "line": (command.original or "").split("\n")[0],
            "lines": [command.start_line, command.end_line],
            "flags": [flag or "" for flag in command.flags],
            "values": [value or "" for value in command.value],
            "heredocs": [[heredoc.name or "", heredoc.file_descriptor, heredoc.content or ""] for heredoc in command.heredocs],
        }
        for command in commands
    ]


json.dump([parsed(text) for text in json.load(sys.stdin)], sys.stdout)
